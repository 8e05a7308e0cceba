package intake

import (
	"context"
	"net/http"
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
	findWithin  = 2500 * time.Millisecond // to look a request up before it is stored; with the storing less than 10 s
	placeWithin = 2 * time.Second         // to find the place of a stored request
	readWithin  = 8 * time.Second
	maxPrefer   = 30 * time.Second
	waitStep    = 250 * time.Millisecond
)

// post takes one request. A crash before the answer leaves the client without one: it sends the request again under its
// id.
func (s *Server) post(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	a, p := s.read(w, r, c)
	if p != nil {
		return p
	}
	conn := s.link.get()
	if conn == nil {
		return fault(codeNotQueued, "the broker can't be reached; send the request again")
	}
	ctx, cancel := context.WithTimeout(r.Context(), findWithin)
	defer cancel()
	var k known
	if !a.newID {
		k = s.before(ctx, conn, a)
	}
	if k.entry.State != "" && !k.entry.Matches(a.req) || len(k.queued) > 0 && !same(k.queued[0].req, a.req) {
		return fault(message.CodeIDConflict, "id: the client has used it for another machine or comment; choose another")
	}
	st := status{ID: a.req.ID, Status: notStarted, Duplicate: !k.empty()}
	if s.isToBeStored(ctx, conn, k, a) {
		if p := s.store(r.Context(), conn, c, a, &st); p != nil {
			return p
		}
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), readWithin)
		defer cancel()
		now, err := s.statusOf(ctx, conn, a.req.ID, k)
		if err != nil {
			return fault(codeUnavailable, "what became of the request can't be read now")
		}
		st = now
		st.Duplicate = true
		if st.Result != nil {
			return write(w, http.StatusOK, st)
		}
	}
	if wait := prefers(r); wait > 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the request is read; its deadline would end the wait
		s.await(r.Context(), wait, a.req)
		if st = s.reread(r.Context(), a.req, st); st.Result != nil {
			return write(w, http.StatusOK, st)
		}
	}
	return s.accepted(w, r, st)
}

// before is what is stored of a request before it is published. If that can't be read, it counts as nothing: the worker
// judges again.
func (s *Server) before(ctx context.Context, conn *broker.Broker, a submission) known {
	k, err := s.find(ctx, conn, a.req)
	if err != nil {
		s.log.Debug("what is known of a request can't be read", zap.Error(err))
		return known{}
	}
	return k
}

// same reports whether two requests of one id ask for the same.
func same(a, b message.Request) bool { return a.MachineID == b.MachineID && a.Comment == b.Comment }

// isToBeStored is false for a request that a worker has taken, or will take where it waits in the stream. On another
// lane a waiting request is stored again, which moves it. A request that ended in a dry run may start a new run.
func (s *Server) isToBeStored(ctx context.Context, conn *broker.Broker, k known, a submission) bool {
	switch {
	case k.empty():
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
		return err == nil && !there // no worker resumes a request whose message is gone
	}
	for _, q := range k.queued {
		if q.Lane == a.Lane {
			return false
		}
	}
	return len(k.queued) > 0
}

// store publishes a request. Its Nats-Msg-Id is new each time: the worker recognises a duplicate by the request's id.
func (s *Server) store(ctx context.Context, conn *broker.Broker, c *clients.Client, a submission, st *status) *problem {
	a.Header["Nats-Msg-Id"] = []string{service.RandomID() + service.RandomID()}
	// A client that disconnects must not leave open whether its request was published.
	stored, err := conn.Publish(context.WithoutCancel(ctx), a.Lane, a.Header, a.Data)
	if err != nil {
		s.log.Warn("a request was not stored", zap.String("client", c.Name), zap.Bool("certain", broker.NotStored(err)), zap.Error(err))
		if broker.NotStored(err) {
			return fault(codeNotQueued, "the broker has not stored the request; send it again")
		}
		return fault(codeUnknown, "the broker has not answered; send the request again with the same id, "+strconv.QuoteToASCII(a.req.ID))
	}
	s.log.Debug("a request was stored", zap.String("client", c.Name), zap.Uint64("sequence", stored.Sequence))
	ctx, cancel := context.WithTimeout(ctx, placeWithin)
	defer cancel()
	s.placed(ctx, conn, st, a.Lane, stored.Sequence, a.req.ExpiresAt)
	return nil
}
