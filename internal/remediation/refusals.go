package remediation

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// refusals keep unverified messages from filling the audit trail. The first one of a signer, code and minute has a record of
// its own, before its result is published. The others of that minute are counted in memory, and when the minute has ended
// one record holds their number. A process that is killed loses only that count.
type refusals struct {
	mu       sync.Mutex
	nonEmpty chan struct{}   // closed once there is a count; nil: no waiter
	counts   map[refusal]int // without the first; 0: only the first
}

// refusal is the key of a count. The signer is a configured name or "", never a name from a message: otherwise anybody could
// create any number of keys.
type refusal struct {
	minute       time.Time
	code, signer string
	order        bool // counts orders, not requests
}

// count counts a refusal, and reports whether it is only counted, without a record of its own.
func (s *refusals) count(r refusal) (counted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[refusal]int{}
	}
	n, counted := s.counts[r]
	if counted {
		n++
	}
	s.counts[r] = n
	if s.nonEmpty != nil {
		close(s.nonEmpty)
		s.nonEmpty = nil
	}
	return counted
}

// await blocks until there is a count.
func (s *refusals) await(ctx context.Context) error {
	s.mu.Lock()
	if len(s.counts) > 0 {
		s.mu.Unlock()
		return nil
	}
	some := make(chan struct{})
	s.nonEmpty = some
	s.mu.Unlock()
	select {
	case <-some:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// add restores a count that could not be recorded.
func (s *refusals) add(r refusal, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 {
		s.counts[r] += n
	} else if s.counts[r] == 0 {
		delete(s.counts, r)
	}
}

// take removes and returns the counts of all minutes before one.
func (s *refusals) take(before time.Time) map[refusal]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := map[refusal]int{}
	for r, n := range s.counts {
		if r.minute.Before(before) {
			past[r] = n
			delete(s.counts, r)
		}
	}
	return past
}

// recordRefusal records the refusal of a message, or counts it.
func (p *attempt) recordRefusal(r ledger.AuditRecord, unverified bool) error {
	if !unverified {
		return p.Audit.Record(p.work, r)
	}
	of := refusal{minute: time.Now().UTC().Truncate(time.Minute), code: r.Error.Code}
	if of.code == message.CodeBadSignature {
		of.signer = p.Rules.Signers.NameOf(p.origin.Header.Get(message.HeaderSigner))
	}
	if p.refusals.count(of) {
		return nil
	}
	r = r.Shorten()
	r.ClaimedSigner = of.signer
	err := p.Audit.Record(p.work, r)
	if err != nil {
		p.refusals.add(of, 0)
	}
	return err
}

// RecordRefusals records how many unverified messages were refused in each minute, until ctx ends, and then the remaining
// counts. It must outlive the handlers.
func (s *Submitter) RecordRefusals(ctx context.Context) error {
	for s.refusals.await(ctx) == nil && sleep(ctx, refusalsEvery) == nil {
		s.recordRefusals(ctx, time.Now().Truncate(time.Minute))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalsEvery)
	defer cancel()
	s.recordRefusals(last, time.Now().Add(time.Minute))
	return nil
}

const refusalsEvery = 5 * time.Second

func (s *Submitter) recordRefusals(ctx context.Context, before time.Time) {
	past := s.refusals.take(before)
	for _, r := range slices.SortedFunc(maps.Keys(past), func(a, b refusal) int {
		return cmp.Or(a.minute.Compare(b.minute), cmp.Compare(a.code, b.code), cmp.Compare(a.signer, b.signer))
	}) {
		n := past[r]
		if n == 0 {
			continue
		}
		what := "messages"
		if r.order {
			what = "orders"
		}
		err := s.Audit.Record(ctx, ledger.AuditRecord{
			Kind: ledger.AuditCounted, Count: n, Minute: r.minute, ClaimedSigner: r.signer, Outcome: message.Rejected,
			Error: &message.Failure{Code: r.code, Message: "as many more " + what + " were refused in this minute", Origin: message.OriginRequest}, DecidedAt: time.Now().UTC(),
		})
		if err != nil {
			s.refusals.add(r, n)
			s.Log.Warn("the number of refused messages is not in the audit trail yet", zap.String("code", r.code), zap.Int("messages", n), zap.Error(err))
		}
	}
}
