package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Overview is the state of a deployment as the broker has it.
type Overview struct {
	Now         time.Time // by the broker's clock
	Pause       *Pause
	Replicas    []Presence
	Pending     int       // requests that nobody has in hand
	InFlight    int       // requests in hand
	Oldest      time.Time // zero: none waits
	Lanes       map[message.Lane]LaneQueue
	Budget      []budget.WindowStatus
	Reserve     map[string]int // calls of each window that replicas leave to look-ups
	NextCall    time.Time      // when a call is free next, by the broker's clock; zero: one is
	Short       string         // the window that has none until then
	Followed    int
	Awaiting    int               // runs that await approval
	Silenced    *health.Condition // why a replica that runs could not say that it does; nil: it could
	DeadLetters int
	NotKept     int // by the replicas that there are, since they were started
}

// Overview asks the broker how things stand. windows are the limits this process is configured with.
func (b *Broker) Overview(ctx context.Context, windows []budget.Window) (Overview, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var o Overview
	if err := b.queue(ctx, &o); err != nil {
		return Overview{}, err
	}
	if err := b.oldest(ctx, &o); err != nil {
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
	if err := b.quota(ctx, &o, windows); err != nil {
		return Overview{}, err
	}
	return o, nil
}

// LaneQueue is what waits in a lane, in hand or not.
type LaneQueue struct {
	Pending int
	Oldest  time.Time // zero: none waits
	from    uint64    // the sequence at which the oldest is looked for
}

// queue counts what the lanes have. One that the stream does not carry has no consumer, and nothing.
func (b *Broker) queue(ctx context.Context, o *Overview) error {
	o.Lanes = map[message.Lane]LaneQueue{}
	for _, l := range message.Lanes() {
		waits, err := b.laneQueue(ctx, l)
		if err != nil {
			return err
		}
		o.Lanes[l] = waits
		o.Pending += waits.Pending
	}
	return nil
}

func (b *Broker) laneQueue(ctx context.Context, l message.Lane) (LaneQueue, error) {
	name := b.cfg.Names.LaneConsumer(l)
	cons, err := b.js.Consumer(ctx, b.cfg.Names.Stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return LaneQueue{}, nil
	}
	if err != nil {
		return LaneQueue{}, fmt.Errorf("consumer %s: %w", name, err)
	}
	info := cons.CachedInfo()
	return LaneQueue{Pending: int(info.NumPending) + info.NumAckPending, from: info.AckFloor.Stream + 1}, nil
}

// oldest finds the first request of each lane that nobody has acknowledged.
func (b *Broker) oldest(ctx context.Context, o *Overview) error {
	for l, waits := range o.Lanes {
		if waits.Pending == 0 {
			continue
		}
		m, found, err := b.get(ctx, b.cfg.Names.Stream, stream.Query{Sequence: waits.from, Next: b.cfg.Names.LaneSubject(l)})
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if waits.Oldest = m.Time; o.Oldest.IsZero() || m.Time.Before(o.Oldest) {
			o.Oldest = m.Time
		}
		o.Lanes[l] = waits
	}
	return nil
}

// shared reads what the replicas tell each other.
func (b *Broker) shared(ctx context.Context, o *Overview) error {
	words, err := b.presences(ctx)
	if IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	state, err := b.open(ctx, "KV_"+StateBucket) // for the broker's time
	if err != nil {
		return err
	}
	keys, now := b.cfg.Names.stateKeys(), state.CachedInfo().TimeStamp
	o.Now = now
	for _, key := range slices.Sorted(maps.Keys(words)) {
		if w := words[key]; w.Value != nil {
			o.learn(key, w, keys, now)
		}
	}
	o.Pending = max(o.Pending-o.InFlight, 0)
	if len(o.Replicas) == 0 {
		o.Silenced = b.silenced(ctx, state.CachedInfo())
	}
	return nil
}

// silenced is why nothing can be written into the state bucket, as far as that shows without writing; nil: nothing is.
func (b *Broker) silenced(ctx context.Context, state *jetstream.StreamInfo) *health.Condition {
	code, why := health.Store, full(state)
	if refuses := refusesSecond(state.Config); refuses != "" {
		code, why = health.Unfit, refuses
	}
	// Who may write the ledger signs in as the worker does; an operator may write neither.
	if why == "" && b.denies(ctx, b.ledger.WriteTo("check")) == nil {
		if denied := b.denies(ctx, b.state.WriteTo("check")); denied != nil {
			why = denied.Error()
		}
	}
	if why == "" {
		return nil
	}
	c := health.New(code, fmt.Sprintf("no worker says that it is there, and none could: stream %s: %s", state.Config.Name, why))
	c.Since = state.State.LastTime
	return &c
}

// presences are the operator's last word on a pause and each replica's on itself, by key; of one that was taken back when.
func (b *Broker) presences(ctx context.Context) (map[string]ledger.Record, error) {
	keys := b.cfg.Names.stateKeys()
	words := map[string]ledger.Record{}
	for _, key := range []string{keys.pause, keys.replica + "*"} {
		for m, err := range b.scan(ctx, "KV_"+StateBucket, part{subject: b.state.Subject(key), bucket: true}) {
			if err != nil {
				return nil, err
			}
			words[b.state.Key(m)] = stream.Record(m)
		}
	}
	return words, nil
}

func (o *Overview) learn(key string, w ledger.Record, keys stateKeys, now time.Time) {
	if key == keys.pause {
		if p := readPause(w.Value, w.Written); !p.over() {
			o.Pause = p
		}
		return
	}
	p := readPresence(w.Value, w.Written)
	// A broker that stores nothing keeps what should have expired.
	if old := now.Sub(w.Written); old > presenceTTL+presenceEvery {
		p.Ready, p.Code, p.Since = false, health.Store, w.Written
		p.Reason = fmt.Sprintf("the broker has stored nothing that this replica said of itself for %s: see its log and its disk", old.Round(time.Second))
		p.Conditions = []health.Condition{health.New(health.Store, p.Reason)}
	}
	p.ID = strings.TrimPrefix(key, keys.replica)
	o.Replicas = append(o.Replicas, p)
	for window, n := range p.Reserve {
		if o.Reserve == nil {
			o.Reserve = map[string]int{}
		}
		o.Reserve[window] = max(o.Reserve[window], n)
	}
	o.InFlight += p.InFlight
	o.Followed += p.Followed
	o.Awaiting += p.Awaiting
	o.NotKept += p.NotKept
}

// DryRuns counts the replicas that are in dry run.
func (o Overview) DryRuns() (n int) {
	for _, r := range o.Replicas {
		if r.DryRun {
			n++
		}
	}
	return n
}

// Pending is how many requests each lane has, whether somebody has them in hand or not.
func (b *Broker) Pending(ctx context.Context) (waiting map[message.Lane]int, all int, err error) {
	var o Overview
	err = b.queue(ctx, &o)
	waiting = map[message.Lane]int{}
	for l, q := range o.Lanes {
		waiting[l] = q.Pending
	}
	return waiting, o.Pending, err
}

// PendingIn is how many requests a lane has; none where the stream does not carry it.
func (b *Broker) PendingIn(ctx context.Context, l message.Lane) (int, error) {
	waiting, err := b.laneQueue(ctx, l)
	return waiting.Pending, err
}

// Latest are a stream's last messages, newest first; fewer where some were deleted.
func (b *Broker) Latest(ctx context.Context, name string, n int) ([]Message, error) {
	s, err := b.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	st := s.CachedInfo().State
	var msgs []Message
	for seq := st.LastSeq; seq >= max(st.FirstSeq, 1) && len(msgs) < n && seq+uint64(4*n) > st.LastSeq; seq-- {
		m, found, err := b.get(ctx, name, stream.Query{Sequence: seq})
		if err != nil {
			return nil, err
		}
		if found {
			msgs = append(msgs, m)
		}
	}
	return msgs, nil
}
