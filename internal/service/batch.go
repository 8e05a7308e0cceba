package service

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Batch is the progress of a batch. Each row is counted once: as waiting, as calling or by its outcome.
type Batch struct {
	Name     string               `json:"name"`
	Rows     int                  `json:"rows"`
	Waiting  int                  `json:"waiting"` // not called yet
	Calling  int                  `json:"calling"` // called, and what became of it is not known yet
	Paused   bool                 `json:"paused"`  // a row was held back, and is not called until the batch is resumed
	Outcomes map[string]int       `json:"outcomes"`
	Lanes    map[message.Lane]int `json:"lanes"`
	Owners   map[string]int       `json:"owners,omitempty"` // rows by signer or client, as far as they have one
	Failures []BatchFailure       `json:"failures"`         // the first ones
	Queue    *Place               `json:"queue,omitempty"`
	Latest   time.Time            `json:"latest"` // when something happened to a row last

	last map[message.Lane]uint64 // the last message of a row that waits, by lane
}

// BatchFailure is a row that did not succeed.
type BatchFailure struct {
	ID      string           `json:"id"`
	Outcome string           `json:"outcome"`
	Error   *message.Failure `json:"error,omitempty"`

	decided time.Time
}

// mostFailures is how many failures of a batch are kept.
const mostFailures = 20

// Batches are the batches that the ledger and the queue have rows of. A row is found for as long as its id is remembered. It costs
// a key in memory while the rows are read; what remains of it is a counter.
type Batches struct {
	of   map[string]*Batch
	rows map[string]bool // of the ledger, by STREAM:SEQ of their messages
}

// RowsOf selects rows. Its functions are called once for each row that has a batch.
type RowsOf struct {
	Entry  func(*ledger.Entry) bool // of the ledger; nil: all
	Queued func(Queued) bool        // messages that wait; nil: all
}

// ReadBatches reads the batch with a name, or all of them if it is "".
func ReadBatches(ctx context.Context, conn *broker.Broker, name string) (*Batches, error) {
	return RowsOf{}.read(ctx, conn, name)
}

// Batch reads one batch; nil: none of its rows is known.
func (o RowsOf) Batch(ctx context.Context, conn *broker.Broker, name string) (*Batch, error) {
	all, err := o.read(ctx, conn, name)
	if err != nil {
		return nil, err
	}
	return all.of[name], nil
}

func (o RowsOf) read(ctx context.Context, conn *broker.Broker, name string) (*Batches, error) {
	all := &Batches{of: map[string]*Batch{}, rows: map[string]bool{}}
	filter := newPrefilter(name)
	// The queue is read first: the ledger has what a worker takes out of it meanwhile.
	queued := map[uint64]queuedRow{}
	_, err := readQueue(conn, conn.Queue(ctx), filter, func(q Queued) bool {
		if b := q.Req.Batch; b != "" && (name == "" || b == name) && q.invalid == nil && (o.Queued == nil || o.Queued(q)) {
			queued[q.Sequence] = queuedRow{batch: b, lane: q.Lane, owner: q.Req.Owner(), at: q.Time}
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	err = conn.NewLedger().SearchFor(ctx, filter.text, func(e ledger.Entry) {
		if e.Batch != "" && (name == "" || e.Batch == name) && (o.Entry == nil || o.Entry(&e)) {
			all.entry(&e)
		}
	})
	if err != nil && !broker.IsMissing(err) {
		return nil, err
	}
	for sequence, row := range queued {
		all.queued(sequence, row, all.rows[fmt.Sprint(conn.Names().Stream, ":", sequence)])
	}
	return all, nil
}

// queuedRow is what is kept of a row's message in the request stream while the ledger is read.
type queuedRow struct {
	batch string
	lane  message.Lane
	owner string
	at    time.Time
}

func (b *Batches) batch(name string) *Batch {
	batch := b.of[name]
	if batch == nil {
		batch = &Batch{Name: name, Outcomes: map[string]int{}, Lanes: map[message.Lane]int{}, Owners: map[string]int{}, Failures: []BatchFailure{}, last: map[message.Lane]uint64{}}
		b.of[name] = batch
	}
	return batch
}

func (b *Batches) entry(e *ledger.Entry) {
	if e.Source != "" && b.rows[e.Source] { // an entry that is written during the search is read twice
		return
	}
	batch := b.batch(e.Batch)
	b.rows[e.Source] = true
	batch.Rows++
	batch.Lanes[cmp.Or(e.Lane, message.LaneNormal)]++
	batch.owned(cmp.Or(e.SignedBy, e.Client))
	batch.happened(cmp.Or(e.DecidedAt, e.AcceptedAt, e.LastCall, e.ReceivedAt))
	switch e.State {
	case ledger.StateWaiting:
		batch.Waiting++
		why, _ := ownReason(e, time.Now())
		batch.Paused = batch.Paused || why == WaitHeld
	case ledger.StateSubmitted:
		batch.Outcomes[message.Submitted]++
	case ledger.StateFinal:
		batch.Outcomes[e.Outcome]++
		if slices.Contains(Failing(), e.Outcome) {
			batch.fail(e)
		}
	default:
		batch.Calling++
	}
}

// queued adds a message of a row; known: the ledger has the row.
func (b *Batches) queued(sequence uint64, row queuedRow, known bool) {
	batch := b.batch(row.batch)
	batch.last[row.lane] = max(batch.last[row.lane], sequence)
	if known {
		return
	}
	batch.Rows++
	batch.Waiting++
	batch.Lanes[row.lane]++
	batch.owned(row.owner) // only the workers know a signer's name
	batch.happened(row.at)
}

func (b *Batch) owned(owner string) {
	if owner != "" {
		b.Owners[owner]++
	}
}

func (b *Batch) happened(at time.Time) {
	if at.After(b.Latest) {
		b.Latest = at
	}
}

// fail keeps the failures that were decided first.
func (b *Batch) fail(e *ledger.Entry) {
	f := BatchFailure{ID: e.ID, Outcome: e.Outcome, Error: cmp.Or(e.Error, e.LastError), decided: e.DecidedAt}
	at, _ := slices.BinarySearchFunc(b.Failures, f, func(a, f BatchFailure) int { return a.decided.Compare(f.decided) })
	if at < mostFailures {
		b.Failures = slices.Insert(b.Failures, at, f)
		b.Failures = b.Failures[:min(len(b.Failures), mostFailures)]
	}
}

// Failing returns the outcomes of rows that did not succeed. A cancelled row did not fail.
func Failing() []string {
	return []string{message.Failed, message.TimedOut, message.Rejected, message.Abandoned}
}

// List returns the batches, the one that changed last first.
func (b *Batches) List() []*Batch {
	return slices.SortedFunc(maps.Values(b.of), func(a, b *Batch) int {
		return cmp.Or(b.Latest.Compare(a.Latest), cmp.Compare(a.Name, b.Name))
	})
}

// Place sets Queue to the place of the last row that waits, on whichever lane.
func (b *Batch) Place(ctx context.Context, conn *broker.Broker, l Line) error {
	for lane, seq := range b.last {
		p, waits, err := l.Of(ctx, conn, lane, seq)
		if err != nil {
			return err
		}
		if waits && (b.Queue == nil || p.ExpectedAt.After(b.Queue.ExpectedAt) || p.Ahead > b.Queue.Ahead) {
			b.Queue = &p
		}
	}
	if b.Paused && b.Queue != nil {
		b.Queue = &Place{Lane: b.Queue.Lane, Ahead: b.Queue.Ahead, Unavailable: WaitHeld}
	}
	return nil
}
