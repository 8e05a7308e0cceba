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

// Overview is the state of a deployment, as the broker's streams and buckets show it.
type Overview struct {
	Now           time.Time // by the broker's clock
	Pause         *Pause
	Replicas      []Presence
	Pending       int       // requests that no replica has in hand
	InFlight      int       // requests in hand
	Oldest        time.Time // zero: no request waits
	Lanes         map[message.Lane]LaneQueue
	Budget        []budget.WindowStatus
	Reserve       map[string]int // calls of each window that are reserved for look-ups
	NextCall      time.Time      // when the next call is free, by the broker's clock; zero: now
	Short         string         // the window that has no free call until then
	Followed      int
	Awaiting      int               // runs that await approval
	PresenceFault *health.Condition // why a running replica could not write its presence record; nil: it could
	DeadLetters   int
	NotKept       int // sum of the present replicas' NotKept, since each was started
}

// Overview reads the state from the broker. windows are the limits that this process is configured with.
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
	Oldest  time.Time // zero: no request waits
	from    uint64    // sequence from which to search for the oldest
}

// queue counts the requests in each lane. A lane that the stream does not carry has no consumer and no requests.
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

// shared reads the operator's pause and the replicas' presence records.
func (b *Broker) shared(ctx context.Context, o *Overview) error {
	records, err := b.presences(ctx)
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
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if r := records[key]; r.Value != nil {
			o.add(key, r, keys, now)
		}
	}
	o.Pending = max(o.Pending-o.InFlight, 0)
	if len(o.Replicas) == 0 {
		o.PresenceFault = b.presenceFault(ctx, state.CachedInfo())
	}
	return nil
}

// presenceFault is why replicas can't write into the state bucket, as far as that can be found out without writing; nil: they
// can.
func (b *Broker) presenceFault(ctx context.Context, state *jetstream.StreamInfo) *health.Condition {
	code, why := health.Store, full(state)
	if refuses := refusesSecond(state.Config); refuses != "" {
		code, why = health.Unfit, refuses
	}
	// Check only if this user may write the ledger: then it has the worker's permissions. An operator's user may write neither.
	if why == "" && b.denies(ctx, b.ledger.WriteTo("check")) == nil {
		if denied := b.denies(ctx, b.state.WriteTo("check")); denied != nil {
			why = denied.Error()
		}
	}
	if why == "" {
		return nil
	}
	c := health.New(code, fmt.Sprintf("there is no presence record of a worker, and none can be written: stream %s: %s", state.Config.Name, why))
	c.Since = state.State.LastTime
	return &c
}

// presences returns the latest record of the operator's pause and of each replica's presence, by key. A record that was removed
// has no value, but the time of its removal.
func (b *Broker) presences(ctx context.Context) (map[string]ledger.Record, error) {
	keys := b.cfg.Names.stateKeys()
	records := map[string]ledger.Record{}
	for _, key := range []string{keys.pause, keys.replica + "*"} {
		for m, err := range b.scan(ctx, "KV_"+StateBucket, part{subject: b.state.Subject(key), bucket: true}) {
			if err != nil {
				return nil, err
			}
			records[b.state.Key(m)] = stream.Record(m)
		}
	}
	return records, nil
}

func (o *Overview) add(key string, rec ledger.Record, keys stateKeys, now time.Time) {
	if key == keys.pause {
		if p := readPause(rec.Value, rec.Written); !p.ended() {
			o.Pause = p
		}
		return
	}
	p := readPresence(rec.Value, rec.Written)
	// A broker that can't store anything does not expire records either.
	if old := now.Sub(rec.Written); old > presenceTTL+presenceEvery {
		p.Ready, p.Code, p.Since = false, health.Store, rec.Written
		p.Reason = fmt.Sprintf("the broker has not stored this replica's presence record for %s: see the broker's log and its disk", old.Round(time.Second))
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

// Pending is how many requests each lane has, and all lanes together, in hand or not.
func (b *Broker) Pending(ctx context.Context) (waiting map[message.Lane]int, all int, err error) {
	var o Overview
	err = b.queue(ctx, &o)
	waiting = map[message.Lane]int{}
	for l, q := range o.Lanes {
		waiting[l] = q.Pending
	}
	return waiting, o.Pending, err
}

// PendingIn is how many requests a lane has; 0 if the stream does not carry it.
func (b *Broker) PendingIn(ctx context.Context, l message.Lane) (int, error) {
	waiting, err := b.laneQueue(ctx, l)
	return waiting.Pending, err
}

// Latest returns a stream's last n messages, newest first; fewer if some were deleted.
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
