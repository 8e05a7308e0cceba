package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// Presence is what a replica says of itself every few seconds.
type Presence struct {
	ID       string    `json:"-"` // whose word it is
	Ready    bool      `json:"ready"`
	Reason   string    `json:"reason,omitempty"` // why not
	Since    time.Time `json:"since,omitzero"`   // not ready since
	InFlight int       `json:"inFlight"`
	Followed int       `json:"followed"`
	Version  string    `json:"version"`
}

// Overview is the state of a deployment as the broker has it.
type Overview struct {
	Pause       *Pause
	Replicas    []Presence
	Pending     int       // requests that nobody has in hand
	InFlight    int       // requests in hand
	Oldest      time.Time // zero: none waits
	Budget      []budget.WindowStatus
	Followed    int
	DeadLetters int
}

// Overview asks the broker how things stand. windows are the limits this process is configured with.
func (b *Broker) Overview(ctx context.Context, windows []budget.Window) (Overview, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var o Overview
	if err := b.queue(ctx, &o); err != nil {
		return Overview{}, err
	}
	if err := b.shared(ctx, &o); err != nil {
		return Overview{}, err
	}
	dead, err := b.js.Stream(ctx, b.cfg.Names.DeadletterStream)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return Overview{}, fmt.Errorf("stream %s: %w", b.cfg.Names.DeadletterStream, err)
	}
	if err == nil {
		o.DeadLetters = int(dead.CachedInfo().State.Msgs)
	}
	if o.Budget, err = RateRemaining(ctx, b.js, windows); err != nil {
		return Overview{}, err
	}
	return o, nil
}

func (b *Broker) queue(ctx context.Context, o *Overview) error {
	n := b.cfg.Names
	s, err := b.js.Stream(ctx, n.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", n.Stream, err)
	}
	cons, err := s.Consumer(ctx, n.Consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("consumer %s: %w", n.Consumer, err)
	}
	info := cons.CachedInfo()
	o.Pending = int(info.NumPending) + info.NumAckPending
	if st := s.CachedInfo().State; st.Msgs > 0 {
		o.Oldest = st.FirstTime
	}
	return nil
}

// shared reads what the replicas tell each other.
func (b *Broker) shared(ctx context.Context, o *Overview) error {
	kv, err := b.js.KeyValue(ctx, StateBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bucket %s: %w", StateBucket, err)
	}
	keys := b.cfg.Names.stateKeys()
	w, err := kv.WatchFiltered(ctx, []string{keys.pause, keys.replica + "*"}, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read %s: %w", StateBucket, err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-w.Updates():
			if !ok || e == nil {
				o.Pending = max(o.Pending-o.InFlight, 0)
				return nil
			}
			o.learn(e, keys)
		}
	}
}

func (o *Overview) learn(e jetstream.KeyValueEntry, keys stateKeys) {
	if e.Key() == keys.pause {
		if p := readPause(e); !p.over() {
			o.Pause = p
		}
		return
	}
	var p Presence
	if json.Unmarshal(e.Value(), &p) != nil {
		p = Presence{Reason: "a replica says what is not understood; ask with its version of the worker", Since: e.Created()}
	}
	p.ID = strings.TrimPrefix(e.Key(), keys.replica)
	o.Replicas = append(o.Replicas, p)
	o.InFlight += p.InFlight
	o.Followed += p.Followed
}

// Pending is how many requests the stream has, whether somebody has them in hand or not.
func (b *Broker) Pending(ctx context.Context) (int, error) {
	var o Overview
	err := b.queue(ctx, &o)
	return o.Pending, err
}

// Latest are a stream's last messages, newest first; fewer where some were deleted.
func (b *Broker) Latest(ctx context.Context, stream string, n int) ([]*jetstream.RawStreamMsg, error) {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	st := s.CachedInfo().State
	var msgs []*jetstream.RawStreamMsg
	for seq := st.LastSeq; seq >= max(st.FirstSeq, 1) && len(msgs) < n && seq+uint64(4*n) > st.LastSeq; seq-- {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", stream, err)
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// Tally counts the final results of the last 24 hours by outcome. It reads on from where it was each time it is asked,
// so that it costs nothing while nobody asks.
type Tally struct {
	b *Broker

	mu      sync.Mutex
	next    uint64 // sequence to go on from; 0: not begun
	minutes map[time.Time]map[string]int
}

const tallyOver = 24 * time.Hour

// NewTally begins with the results of the last 24 hours.
func (b *Broker) NewTally() *Tally {
	return &Tally{b: b, minutes: map[time.Time]map[string]int{}}
}

// Counts reads up to the present. byMinute must not be changed.
func (t *Tally) Counts(ctx context.Context) (total map[string]int, byMinute map[time.Time]map[string]int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.read(ctx); err != nil {
		return nil, nil, err
	}
	total, byMinute = map[string]int{}, map[time.Time]map[string]int{}
	for minute, counts := range t.minutes {
		if time.Since(minute) > tallyOver {
			delete(t.minutes, minute)
			continue
		}
		byMinute[minute] = counts
		for outcome, n := range counts {
			total[outcome] += n
		}
	}
	return total, byMinute, nil
}

func (t *Tally) read(ctx context.Context) error {
	n := t.b.cfg.Names
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{n.ResultsSubject}, HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: t.next}
	if t.next == 0 {
		from := time.Now().Add(-tallyOver)
		cfg.DeliverPolicy, cfg.OptStartTime, cfg.OptStartSeq = jetstream.DeliverByStartTimePolicy, &from, 0
	}
	cons, err := t.b.js.OrderedConsumer(ctx, n.ResultsStream, cfg)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", n.ResultsStream, err)
	}
	info, err := cons.Info(ctx)
	if err != nil {
		return fmt.Errorf("read %s: %w", n.ResultsStream, err)
	}
	if info.NumPending == 0 {
		return nil
	}
	it, err := cons.Messages()
	if err != nil {
		return fmt.Errorf("read %s: %w", n.ResultsStream, err)
	}
	defer it.Stop()
	for {
		msg, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read %s: %w", n.ResultsStream, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", n.ResultsStream, err)
		}
		t.count(msg, meta)
		if meta.NumPending == 0 {
			return nil
		}
	}
}

func (t *Tally) count(msg jetstream.Msg, meta *jetstream.MsgMetadata) {
	t.next = meta.Sequence.Stream + 1
	h := msg.Headers()
	outcome, ok := strings.CutPrefix(h.Get("ce-type"), "remediation.unrestrict.")
	if !ok || !strings.Contains(h.Get(jetstream.MsgIDHeader), ":final:") {
		return
	}
	minute := meta.Timestamp.UTC().Truncate(time.Minute)
	if t.minutes[minute] == nil {
		t.minutes[minute] = map[string]int{}
	}
	t.minutes[minute][outcome]++
}
