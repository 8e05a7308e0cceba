package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/message"
)

// results streams a client's results. A client that returns with the last id that it has seen misses none and gets none
// twice.
func (s *Server) results(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	begin, p := beginning(r)
	if p != nil {
		return p
	}
	conn := s.link.get()
	if conn == nil {
		return fault(codeUnavailable, "the broker can't be reached")
	}
	tail, leave, err := s.hub.follow(r.Context(), conn)
	if err != nil {
		return fault(codeUnavailable, "the results can't be read now")
	}
	defer leave()
	out := &resultWriter{w: w, control: http.NewResponseController(w), events: strings.Contains(r.Header.Get("Accept"), "text/event-stream"), mine: s.owns(c)}
	if out.begin(); r.Method == http.MethodHead {
		return nil
	}
	s.streamResults(r.Context(), conn, tail, begin, out)
	return nil
}

// beginning is where a reader begins. A number is the last event that the reader has seen.
func beginning(r *http.Request) (o broker.FollowOptions, p *problem) {
	query := r.URL.Query()
	after, field := r.Header.Get("Last-Event-ID"), "Last-Event-ID"
	if after == "" {
		after, field = query.Get("after"), "after"
	}
	if after != "" {
		sequence, err := strconv.ParseUint(after, 10, 63)
		if err != nil {
			return o, malformed(field, field+": is no id of an event; give the last that was received")
		}
		return broker.FollowOptions{From: sequence + 1}, nil
	}
	since := query.Get("since")
	if since == "" {
		return o, nil
	}
	at, err := time.Parse(time.RFC3339, since)
	if back, bad := config.ParseDuration(since); err != nil && bad == nil && back >= 0 {
		at, err = time.Now().Add(-back), nil
	}
	if err != nil {
		return o, malformed("since", "since: is neither a time nor a duration; give one such as 2026-11-24T18:00:00Z or 1h")
	}
	return broker.FollowOptions{Since: at}, nil
}

// owns returns a predicate for the client's own results.
func (s *Server) owns(c *clients.Client) func(message.Result) bool {
	of := s.identityOf(c, "")
	return func(r message.Result) bool {
		if of.SignedBy != "" {
			return r.SignedBy == of.SignedBy
		}
		return r.SignedBy == "" && r.Client == of.Client
	}
}

// streamResults first reads from the stream, if the reader begins there or has fallen behind, and then follows the
// tail.
func (s *Server) streamResults(ctx context.Context, conn *broker.Broker, t *tail, begin broker.FollowOptions, out *resultWriter) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := t.reached()
	if begin.From > next { // an id of an earlier stream of that name
		begin.From = 1
	}
	past := begin.From > 0 || !begin.Since.IsZero()
	for at := next; ; {
		if past {
			begin.ToPresent, next = true, t.reached()
			err := conn.Follow(ctx, conn.Names().ResultsStream, begin, func(m broker.Message) error {
				at = max(at, m.Sequence+1)
				return out.write(m)
			})
			if err != nil || ctx.Err() != nil {
				return
			}
			past, at = false, max(at, next) // deleted messages are skipped
		}
		list, behind, news, err := t.from(at)
		for _, m := range list {
			if out.write(m) != nil {
				return
			}
			at = m.Sequence + 1
		}
		switch {
		case behind:
			past, begin = true, broker.FollowOptions{From: at}
		case news == nil:
		case err != nil || !s.awaitNews(ctx, news, out):
			return
		}
	}
}

// heartbeat is how often an event stream without events sends a comment, which shows that it is alive.
const heartbeat = 15 * time.Second

func (s *Server) awaitNews(ctx context.Context, news <-chan struct{}, out *resultWriter) bool {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-news:
			return true
		case <-beat.C:
			if out.beat() != nil {
				return false
			}
		case <-s.draining:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// resultWriter writes results in one of the two forms.
type resultWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	events  bool
	mine    func(message.Result) bool
}

// resultWithin is how long a reader may take to receive a result.
const resultWithin = 30 * time.Second

func (o *resultWriter) begin() {
	kind := "application/jsonl"
	if o.events {
		kind = "text/event-stream"
	}
	o.w.Header().Set("Content-Type", kind)
	_ = o.control.SetReadDeadline(time.Time{}) // nothing more is read from the client, however long the stream lasts
	o.w.WriteHeader(http.StatusOK)
	_ = o.flush("")
}

func (o *resultWriter) beat() error {
	if o.events {
		return o.flush(": \n\n")
	}
	return nil
}

func (o *resultWriter) write(m broker.Message) error {
	var r message.Result
	if json.Unmarshal(m.Data, &r) != nil || !o.mine(r) {
		return nil
	}
	var line bytes.Buffer
	if json.Compact(&line, m.Data) != nil {
		return nil
	}
	if o.events {
		return o.flush(fmt.Sprintf("id: %d\ndata: %s\n\n", m.Sequence, line.Bytes()))
	}
	return o.flush(fmt.Sprintf("{\"eventId\":\"%d\",\"result\":%s}\n", m.Sequence, line.Bytes()))
}

func (o *resultWriter) flush(text string) error {
	_ = o.control.SetWriteDeadline(time.Now().Add(resultWithin))
	if _, err := o.w.Write([]byte(text)); err != nil {
		return err
	}
	return o.control.Flush()
}
