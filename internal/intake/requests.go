package intake

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

const (
	findWithin = 2500 * time.Millisecond // what is known of a request before it is stored; with the storing less than 10 s
	tellWithin = 2 * time.Second         // where a request waits that was stored
	readWithin = 8 * time.Second
	maxPrefer  = 30 * time.Second
	waitStep   = 250 * time.Millisecond
)

// post takes one request. A crash before the answer leaves a client that does not know: it sends the request again under its id.
func (s *Server) post(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	a, p := s.read(w, r, c)
	if p != nil {
		return p
	}
	conn := s.link.get()
	if conn == nil {
		return fault(codeNotQueued, "the broker can't be reached; send the request again")
	}
	var k known
	if !a.made {
		k = s.before(r.Context(), conn, a)
	}
	if k.entry.State != "" && !k.entry.Means(a.req) || len(k.queued) > 0 && !same(k.queued[0].req, a.req) {
		return fault(message.CodeIDConflict, "id: the client has used it for another machine or comment; choose another")
	}
	st := status{ID: a.req.ID, Status: notStarted, Duplicate: !k.nothing()}
	if s.isToBeStored(r.Context(), conn, k, a) {
		if p := s.store(r.Context(), conn, c, a, &st); p != nil {
			return p
		}
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), readWithin)
		defer cancel()
		told, err := s.tell(ctx, conn, a.req.ID, k)
		if err != nil {
			return fault(codeUnavailable, "what became of the request can't be read now")
		}
		st = told
		st.Duplicate = true
		if st.Result != nil {
			return write(w, http.StatusOK, st)
		}
	}
	if wait := prefers(r); wait > 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the request is whole; else its time would end the wait
		if ended, ok := s.await(r.Context(), wait, a.req); ok {
			ended.Duplicate = st.Duplicate
			return write(w, http.StatusOK, ended)
		}
	}
	return s.accepted(w, r, st)
}

// before is what is known of a request before it is stored. What can't be read counts as nothing: the worker judges again.
func (s *Server) before(ctx context.Context, conn *broker.Broker, a asked) known {
	ctx, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	k, err := s.find(ctx, conn, a.req)
	if err != nil {
		s.log.Debug("what is known of a request can't be read", zap.Error(err))
		return known{}
	}
	return k
}

// same reports whether two requests of one id mean the same.
func same(a, b message.Request) bool { return a.MachineID == b.MachineID && a.Comment == b.Comment }

// isToBeStored is false for what a worker has taken for good, or will take from where it waits. Another lane moves a request that
// waits, and a request that was tried in a dry run may be a new run now.
func (s *Server) isToBeStored(ctx context.Context, conn *broker.Broker, k known, a asked) bool {
	switch {
	case k.nothing():
		return true
	case k.ended():
		return k.entry.Outcome == message.DryRun
	case k.entry.State == ledger.StateWaiting:
		i := strings.LastIndexByte(k.entry.Source, ':')
		sequence, err := strconv.ParseUint(k.entry.Source[i+1:], 10, 64)
		if k.entry.Lane != a.Lane || err != nil {
			return true
		}
		_, there, err := conn.Arrival(ctx, sequence)
		return err == nil && !there // nobody takes a request up whose message is gone
	}
	for _, q := range k.queued {
		if q.Lane == a.Lane {
			return false
		}
	}
	return len(k.queued) > 0
}

// store publishes a request. Its message id is its own each time: the worker knows it by the request's.
func (s *Server) store(ctx context.Context, conn *broker.Broker, c *clients.Client, a asked, st *status) *problem {
	a.Header["Nats-Msg-Id"] = []string{service.RandomID() + service.RandomID()}
	// A client that goes away must not leave it open whether its request was sent.
	stored, err := conn.Publish(context.WithoutCancel(ctx), a.Lane, a.Header, a.Data)
	if err != nil {
		s.log.Warn("a request was not stored", zap.String("client", c.Name), zap.Bool("certain", broker.NotStored(err)), zap.Error(err))
		if broker.NotStored(err) {
			return fault(codeNotQueued, "the broker has not stored the request; send it again")
		}
		return fault(codeUnknown, "the broker has not answered; send the request again with the same id, "+strconv.QuoteToASCII(a.req.ID))
	}
	s.log.Debug("a request was stored", zap.String("client", c.Name), zap.Uint64("sequence", stored.Sequence))
	ctx, cancel := context.WithTimeout(ctx, tellWithin)
	defer cancel()
	s.placed(ctx, conn, st, a.Lane, stored.Sequence, a.req.ExpiresAt)
	return nil
}

// prefers is how long the client would wait for the end: the hint wait of RFC 7240.
func prefers(r *http.Request) time.Duration {
	for _, line := range r.Header.Values("Prefer") {
		for hint := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(hint), "=")
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && strings.EqualFold(strings.TrimSpace(name), "wait") && n > 0 {
				return min(time.Duration(min(n, 60))*time.Second, maxPrefer)
			}
		}
	}
	return 0
}

// await waits for a request's end; false: it has not come, or the intake is ending.
func (s *Server) await(ctx context.Context, wait time.Duration, r message.Request) (status, bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	key := ledger.EntryKey(s.rules.Stream, r, time.Time{})
	for tick := time.NewTicker(waitStep); ; {
		select {
		case <-tick.C:
		case <-s.draining:
			tick.Stop()
			return status{}, false
		case <-ctx.Done():
			tick.Stop()
			return status{}, false
		}
		conn := s.link.get()
		if conn == nil {
			continue
		}
		k, err := entry(ctx, conn, key)
		if err != nil || !k.ended() {
			continue
		}
		if st, err := s.tell(ctx, conn, r.ID, k); err == nil {
			tick.Stop()
			return st, true
		}
	}
}

// accepted answers that a request is open, and where to ask for it.
func (s *Server) accepted(w http.ResponseWriter, r *http.Request, st status) *problem {
	path := requestPath(st.ID)
	h := w.Header()
	h.Set("Location", path)
	h.Set("Operation-Location", s.base(r)+path)
	h.Set("Retry-After", strconv.Itoa(againIn(st)))
	return write(w, http.StatusAccepted, st)
}

// requestPath is where a request is, whatever its id holds: a dot or two would be a folder.
func requestPath(id string) string {
	escaped := url.PathEscape(id)
	if strings.Trim(id, ".") == "" {
		escaped = strings.ReplaceAll(id, ".", "%2E")
	}
	return "/v1/requests/" + escaped
}

// base is what addresses begin with for this client.
func (s *Server) base(r *http.Request) string {
	if s.settings.Intake.URL != "" {
		return s.settings.Intake.URL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// againIn is in how many seconds there may be something new.
func againIn(st status) int {
	if st.Queue != nil && !st.Queue.ExpectedAt.IsZero() {
		return int(min(max(math.Ceil(time.Until(st.Queue.ExpectedAt).Seconds()), 2), 60))
	}
	return 5
}

// get tells of a request.
func (s *Server) get(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	conn := s.link.get()
	if conn == nil {
		return fault(codeUnavailable, "the broker can't be reached")
	}
	ctx, cancel := context.WithTimeout(r.Context(), readWithin)
	defer cancel()
	id := r.PathValue("id")
	k, err := s.find(ctx, conn, s.as(c, id))
	if err == nil && k.nothing() {
		return unknownRequest()
	}
	var st status
	if err == nil {
		st, err = s.tell(ctx, conn, id, k)
	}
	if err != nil {
		s.log.Warn("a request can't be read", zap.String("client", c.Name), zap.Error(err))
		return fault(codeUnavailable, "what became of the request can't be read now")
	}
	if st.Result != nil {
		return write(w, http.StatusOK, st)
	}
	if r.URL.Query().Get("async") == "false" {
		w.Header().Set("Retry-After", strconv.Itoa(againIn(st)))
		return write(w, http.StatusOK, st)
	}
	return s.accepted(w, r, st)
}

func unknownRequest() *problem {
	return fault(codeUnknownRequest, "it was never stored, or has been forgotten 7 days after its end")
}

// write answers with an object.
func write(w http.ResponseWriter, code int, v any) *problem {
	body, err := message.EncodeJSON(v)
	if err != nil {
		return fault(codeUnavailable, "the answer can't be written")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(json.RawMessage(body), '\n'))
	return nil
}
