package intake

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// status is the JSON object about a request (docs/openapi.yaml).
type status struct {
	ID         string           `json:"id"`
	Status     string           `json:"status"`
	Outcome    string           `json:"outcome,omitempty"`
	Queue      *service.Place   `json:"queue,omitempty"`
	WillExpire bool             `json:"willExpire,omitempty"`
	Duplicate  bool             `json:"duplicate,omitempty"`
	Error      *message.Failure `json:"error,omitempty"`
	Result     json.RawMessage  `json:"result,omitempty"`
}

// States of the Azure guideline for long-running operations.
const (
	notStarted = "NotStarted"
	running    = "Running"
	succeeded  = "Succeeded"
	failed     = "Failed"
	canceled   = "Canceled"
)

// statusOf is the status of a request, from what is stored of it.
func (s *Server) statusOf(ctx context.Context, conn *broker.Broker, id string, k known) (status, error) {
	e := k.entry
	st := status{ID: id, Status: notStarted}
	switch {
	case k.ended():
		return s.finalStatus(ctx, conn, st, e)
	case e.State == "":
		for _, q := range k.queued {
			s.placed(ctx, conn, &st, q.Lane, q.Sequence, q.req.ExpiresAt)
		}
		return st, nil
	case e.State == ledger.StateWaiting:
		if e.Awaits() {
			st.Outcome = message.AwaitingApproval
		}
		s.placeOfTaken(ctx, conn, &st, e)
		return st, nil
	}
	if st.Status = running; e.State == ledger.StateSubmitted {
		st.Outcome = message.Submitted
	}
	return st, nil
}

// finalStatus is the status of a request that has ended, with its last result as published. If the stream no longer has
// that result, it is made from the ledger's entry.
func (s *Server) finalStatus(ctx context.Context, conn *broker.Broker, st status, e ledger.Entry) (status, error) {
	result := e.Result()
	from := e.DecidedAt
	if e.Written.Before(from) {
		from = e.Written
	}
	m, found, err := conn.ResultOf(ctx, result.MessageID(), from.Add(-skew), e.Written.Add(skew))
	if err != nil && !broker.IsMissing(err) {
		return st, err
	}
	if !found {
		if _, m.Data, err = result.Render("", message.Trace{}, 0); err != nil {
			return st, err
		}
	}
	_ = json.Unmarshal(m.Data, &result) // our own JSON
	st.Status, st.Outcome, st.Result, st.Error = endOf(result.Outcome), result.Outcome, m.Data, service.WhyEnded(result)
	return st, nil
}

// skew is how much the clocks of worker and broker may differ.
const skew = time.Minute

func endOf(outcome string) string {
	switch outcome {
	case message.Succeeded, message.DryRun, message.Submitted:
		return succeeded
	case message.Cancelled:
		return canceled
	}
	return failed
}

// placed adds to st where a message waits; of several messages the one that is called first counts. It is no error if
// the place can't be determined.
func (s *Server) placed(ctx context.Context, conn *broker.Broker, st *status, lane message.Lane, sequence uint64, expires time.Time) {
	line, err := s.lines.Look(ctx, conn, s.settings)
	if err != nil {
		return
	}
	p, waits, err := line.Of(ctx, conn, lane, sequence)
	if err == nil && waits && (st.Queue == nil || p.Ahead < st.Queue.Ahead) {
		st.Queue = &p
		st.WillExpire = !expires.IsZero() && expires.Before(p.ExpectedAt)
	}
}

// placeOfTaken adds to st where a request waits that a worker has taken but not called for.
func (s *Server) placeOfTaken(ctx context.Context, conn *broker.Broker, st *status, e ledger.Entry) {
	lane := cmp.Or(e.Lane, message.LaneNormal)
	i := strings.LastIndexByte(e.Source, ':')
	if sequence, err := strconv.ParseUint(e.Source[i+1:], 10, 64); err == nil {
		s.placed(ctx, conn, st, lane, sequence, time.Time{})
	}
	if st.Queue == nil {
		st.Queue = &service.Place{Lane: lane, Unavailable: service.WaitTaken}
	}
	p := st.Queue.Own(&e, time.Now())
	if e.Awaits() {
		p = service.Place{Lane: lane, Ahead: p.Ahead, Unavailable: service.WaitAwaitingApproval}
	}
	st.Queue = &p
}
