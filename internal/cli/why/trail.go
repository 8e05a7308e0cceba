package why

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// readTrail reads from the audit trail what was done to its dead letters and, if the request has ended, its comment and its
// exchanges with the API. The trail is long: it begins at the earliest time that these can have, and stops at the decision if
// there was no dead letter.
func (s *History) readTrail(ctx context.Context, conn *broker.Broker) error {
	since, letters := s.firstLetter()
	if !letters {
		since = s.endedAt()
	}
	if since.IsZero() {
		return nil
	}
	stream, err := conn.OpenAuditTrail(ctx)
	if broker.IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return stream.Each(ctx, since.Add(-time.Minute), func(m trail.Message) error {
		var r ledger.AuditRecord
		if json.Unmarshal(m.Data, &r) != nil || r.RequestID != s.id || r.SignedBy != s.signedBy || r.Client != s.client {
			return nil
		}
		s.comment = cmp.Or(r.Comment, s.comment)
		switch r.Kind {
		case ledger.AuditOperated:
			s.acts = append(s.acts, r)
		case ledger.AuditDecided:
			s.decided = append(s.decided, r)
			if !letters {
				return broker.StopFollow()
			}
		}
		return nil
	})
}

// endedAt returns when it ended, as far as that is known; zero: it has not.
func (s *History) endedAt() time.Time {
	if e := s.Entry; e != nil {
		if e.State == ledger.StateFinal && e.Published {
			return e.DecidedAt
		}
		return time.Time{}
	}
	t, _ := s.ended()
	return t.at
}

// firstLetter returns when the first of its runs with a dead letter ended, as far as that is still known.
func (s *History) firstLetter() (at time.Time, had bool) {
	deadLettered := func(outcome string) bool { return outcome == message.Rejected || outcome == message.Abandoned }
	for _, t := range s.results {
		if t.result.RequestID == s.id && deadLettered(t.result.Outcome) {
			return t.at, true
		}
	}
	if e := s.Entry; e != nil && e.State == ledger.StateFinal && deadLettered(e.Outcome) {
		return e.DecidedAt, true
	}
	return time.Time{}, false
}
