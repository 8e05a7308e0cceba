package broker

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

const (
	tallyOver   = 24 * time.Hour
	tallyEvery  = 10 * time.Second // between two writes of the record
	tallyAtOnce = 1000             // results that Run reads between two writes, after it has caught up once
	tallyFine   = 2 * time.Hour    // counts are by the minute up to this age, then by tallyCoarse
	tallyCoarse = 15 * time.Minute
)

// Cursor is the position of a reader in a stream. With the zero value, ReadResults begins 24 hours ago.
type Cursor struct {
	Stream time.Time `json:"stream"` // when the stream was created: a recreated one counts from 1 again
	Next   uint64    `json:"next"`   // sequence to continue at
}

// ReadResults reads from the cursor to the end of the stream, and moves the cursor. If the stream is not the one that the cursor
// is for, it calls anew and reads the last 24 hours. If the stream does not exist, it reads nothing.
func (b *Broker) ReadResults(ctx context.Context, at *Cursor, anew func(), fn func(Message) error) error {
	s, err := b.open(ctx, b.cfg.Names.ResultsStream)
	if IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	p := part{subject: b.cfg.Names.ResultsSubject, from: at.Next}
	if !at.Stream.Equal(info.Created) || at.Next > info.State.LastSeq+1 {
		*at = Cursor{Stream: info.Created}
		anew()
		p.from, p.since = 0, time.Now().Add(-tallyOver)
	}
	for m, err := range b.scanOpened(ctx, s, p) {
		if err == nil {
			at.Next = m.Sequence + 1
			err = fn(m)
		}
		if err != nil {
			return err
		}
	}
	at.Next = info.State.LastSeq + 1
	return nil
}

// Tally counts the final results of the last 24 hours by outcome. It begins with the record in UNRESTRICT_STATE of what was
// counted, and on each question it reads the results that follow, so it costs nothing while nobody asks. If the record is lost
// or invalid, the 24 hours are read again.
type Tally struct {
	b      *Broker
	store  *stream.Bucket
	key    string
	within time.Duration

	turn     chan struct{} // full while somebody reads; the reader owns the three fields below
	at       Cursor
	recorded Cursor // of the record
	revision uint64 // of the record

	mu     sync.Mutex
	counts map[time.Time]map[string]int // by minute or quarter of an hour
}

// NewTally returns a Tally whose Counts answers within that time, with what was counted by then; 0: it waits until all results
// are counted.
func (b *Broker) NewTally(within time.Duration) *Tally {
	return &Tally{
		b: b, store: b.state, key: b.cfg.Names.stateKeys().tally, within: within,
		turn: make(chan struct{}, 1), counts: map[time.Time]map[string]int{},
	}
}

// Counts counts up to the end of the stream; current is false if its time did not suffice. Counts older than two hours are by
// quarters of an hour.
func (t *Tally) Counts(ctx context.Context) (total map[string]int, byMinute map[time.Time]map[string]int, current bool, err error) {
	reading := ctx
	if t.within > 0 {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeout(ctx, t.within)
		defer cancel()
	}
	err = t.inTurn(reading, func() error {
		err := t.read(reading, 0)
		if t.at.Next > t.recorded.Next+tallyAtOnce {
			signal(t.b.results) // have Run write the record, so that the next reader begins there
		}
		return err
	})
	if err != nil && (reading.Err() == nil || ctx.Err() != nil) {
		return nil, nil, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.age(time.Now())
	total, byMinute = map[string]int{}, map[time.Time]map[string]int{}
	for at, counts := range t.counts {
		byMinute[at] = maps.Clone(counts)
		for outcome, n := range counts {
			total[outcome] += n
		}
	}
	return total, byMinute, err == nil, nil
}

func (t *Tally) inTurn(ctx context.Context, do func() error) error {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
		return do()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read counts at most so many of the results that follow the cursor; 0: all.
func (t *Tally) read(ctx context.Context, most int) error {
	if t.at == (Cursor{}) {
		if err := t.load(ctx); err != nil {
			return err
		}
	}
	n := 0
	return t.b.ReadResults(ctx, &t.at, func() { t.begin(nil) }, func(m Message) error {
		t.count(m)
		if n++; n == most {
			return errStopFollow
		}
		return nil
	})
}

// begin replaces the counts by those of a record.
func (t *Tally) begin(recorded map[int64]map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts = map[time.Time]map[string]int{}
	for minute, counts := range recorded {
		t.counts[time.Unix(minute*60, 0).UTC()] = counts
	}
}

func (t *Tally) count(m Message) {
	outcome, ok := strings.CutPrefix(m.Header.Get("ce-type"), "remediation.unrestrict.")
	if !ok || !message.IsOutcome(outcome) || !strings.Contains(m.Header.Get(jetstream.MsgIDHeader), ":final:") {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(m.Time.UTC().Truncate(time.Minute), map[string]int{outcome: 1})
}

func (t *Tally) add(at time.Time, counts map[string]int) {
	if t.counts[at] == nil {
		t.counts[at] = map[string]int{}
	}
	for outcome, n := range counts {
		t.counts[at][outcome] += n
	}
}

// age drops counts older than 24 hours, and merges those older than two hours into quarters of an hour, so the record stays small.
func (t *Tally) age(now time.Time) {
	for at, counts := range maps.Clone(t.counts) {
		if coarse := at.Truncate(tallyCoarse); now.Sub(at) > tallyFine && !coarse.Equal(at) {
			delete(t.counts, at)
			t.add(coarse, counts)
			at = coarse
		}
		if now.Sub(at) > tallyOver {
			delete(t.counts, at)
		}
	}
}
