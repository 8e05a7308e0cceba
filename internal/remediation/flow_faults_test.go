package remediation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// point is a place where something becomes durable, or is to be.
type point string

const (
	atIntent    point = "intent"         // entry: called
	atMachine   point = "machine taken"  // the machine's record
	atPost      point = "POST"           // the exchange itself
	atUnknown   point = "unknown"        // entry: the call ended without telling
	atWaiting   point = "waiting"        // entry: no call under way
	atRecord    point = "record"         // entry: submitted
	atDecision  point = "decision"       // entry: final
	atSubmitted point = "submitted told" // result
	atFinal     point = "final told"     // result
	atLetter    point = "dead letter"    // dead letter
	atDrop      point = "dead letter dropped"
	atMark      point = "mark" // entry: everybody was told
	atAudit     point = "audit record"
	atAck       point = "ack"
	atHeld      point = "id held" // from replicas of the version before
	atProbe     point = "probe"   // a key that nobody reads
)

// fault is one misfortune, in one of two forms: what was to be done is refused, or it is done and nobody hears of it.
type fault struct {
	at    point
	done  bool          // done, and the reply lost; else refused before
	dies  bool          // the replica is killed there and then
	who   *replica      // nil: any
	times int           // how often it strikes; 0: until cleared
	takes time.Duration // it goes well, but takes so long
}

func (f fault) String() string {
	form := "before"
	if f.done {
		form = "after"
	}
	return form + " " + string(f.at)
}

// faults are what is to go wrong at the broker.
type faults struct {
	mu    sync.Mutex
	list  []*fault
	count map[point]int // how often each point was come to by a living replica
}

func (f *faults) inject(more ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range more {
		f.list = append(f.list, &one)
	}
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// armed is how many faults have not struck yet.
func (f *faults) armed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list)
}

// meet is the fault that strikes r at a point, nil if none.
func (r *replica) meet(at point) *fault {
	f := &r.w.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = map[point]int{}
	}
	f.count[at]++
	for i, one := range f.list {
		if one.at != at || one.who != nil && one.who != r {
			continue
		}
		struck := *one
		if one.times > 0 {
			if one.times--; one.times == 0 {
				f.list = append(f.list[:i:i], f.list[i+1:]...)
			}
		}
		return &struck
	}
	return nil
}

var (
	errDead  = errors.New("the process is dead")
	errFault = errors.New("injected fault")
)

// do carries an operation out as the faults allow. A dead process does nothing any more.
func (r *replica) do(at point, op func() error) error {
	if r.dead.Load() {
		return errDead
	}
	f := r.meet(at)
	if f == nil {
		return op()
	}
	if f.takes > 0 {
		time.Sleep(f.takes)
		return op()
	}
	if f.done {
		if err := op(); err != nil {
			return err
		}
	}
	if f.dies {
		r.kill()
		return errDead
	}
	return fmt.Errorf("%s: %w", f, errFault)
}

// ledger is a replica's way to the ledger.
type faultyLedger struct {
	ledger.Ledger
	r *replica
}

func (l faultyLedger) Load(ctx context.Context, key string) (ledger.Record, error) {
	if l.r.dead.Load() {
		return ledger.Record{}, errDead
	}
	return l.Ledger.Load(ctx, key)
}

func (l faultyLedger) Save(ctx context.Context, w ledger.Write) (next uint64, err error) {
	err = l.r.do(pointOf(w.Key, w.Value), func() error {
		var err error
		next, err = l.Ledger.Save(ctx, w)
		return err
	})
	if err != nil {
		return 0, err
	}
	return next, nil
}

// SaveBoth is one after the other here, so that a fault can strike at either.
func (l faultyLedger) SaveBoth(ctx context.Context, first, second ledger.Write) (a, b ledger.Saved) {
	a.Revision, a.Err = l.Save(ctx, first)
	b.Revision, b.Err = l.Save(ctx, second)
	return a, b
}

func pointOf(key string, value []byte) point {
	switch {
	case strings.HasPrefix(key, "m."):
		return atMachine
	case strings.HasPrefix(key, "probe."), strings.HasPrefix(key, "x."):
		return atProbe
	case bytes.Contains(value, []byte(`"state":"held"`)):
		return atHeld
	}
	e, err := ledger.DecodeEntry(ledger.Record{Value: value})
	switch {
	case err != nil:
		return point(err.Error())
	case e.Published:
		return atMark
	}
	return map[ledger.State]point{
		ledger.StateWaiting: atWaiting, ledger.StateCalled: atIntent, ledger.StateUnknown: atUnknown,
		ledger.StateSubmitted: atRecord, ledger.StateFinal: atDecision,
	}[e.State]
}

// auditor is a replica's way to the audit trail.
type auditor struct {
	remediation.Auditor
	r *replica
}

func (a auditor) Record(ctx context.Context, rec ledger.AuditRecord) error {
	return a.r.do(atAudit, func() error { return a.Auditor.Record(ctx, rec) })
}

// publisher is a replica's way to the results and the dead letters.
type publisher struct {
	remediation.Publisher
	remediation.DeadLetters
	r *replica
}

func (p publisher) Result(ctx context.Context, res message.Result, trace message.Trace, replyTo string, since time.Time) error {
	at := atSubmitted
	if res.Final {
		at = atFinal
	}
	return p.r.do(at, func() error { return p.Publisher.Result(ctx, res, trace, replyTo, since) })
}

func (p publisher) DeadLetter(ctx context.Context, d message.DeadLetter, since time.Time) error {
	return p.r.do(atLetter, func() error { return p.Publisher.DeadLetter(ctx, d, since) })
}

func (p publisher) Drop(ctx context.Context, seq uint64) error {
	return p.r.do(atDrop, func() error { return p.DeadLetters.Drop(ctx, seq) })
}
