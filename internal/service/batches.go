package service

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// PageDigest keeps what the page shows and what would otherwise take reading the whole results stream each time: the latest
// requests and failures, and the progress of each batch. Run reads each result of the last 24 hours once, in order, when the page
// needs it. Everything that clients can grow is bounded: batches, their rows and what is read of the queue.
type PageDigest struct {
	asked chan chan struct{} // to Run, which closes the channel it receives when it has caught up

	mu       sync.Mutex
	seed     maphash.Seed
	latest   []admin.ResultRow // one for each request, the latest last
	waiting  []admin.ResultRow // requests of the queue that were published last, the latest last
	failures []admin.ResultRow // the latest last
	Batches  map[string]*batchRows
	counted  time.Time // when the queue was counted
	cut      bool      // the queue was not read to its end
}

// batchRows is the rows of one batch, each with the outcome of its latest result.
type batchRows struct {
	rows    map[uint64]string
	counts  map[string]int
	waiting int
	last    time.Time
}

// MostBatches is how many batches are kept, those with the latest results.
const MostBatches = 100

const (
	mostBatchRows = 100_000 // of one
	countEvery    = 10 * time.Second
	countFor      = 2 * time.Second
	countMost     = 10_000 // messages
	countBytes    = 16 << 20
)

// NewPageDigest returns an empty digest.
func NewPageDigest() *PageDigest {
	return &PageDigest{seed: maphash.MakeSeed(), asked: make(chan chan struct{}), Batches: map[string]*batchRows{}}
}

// answerWithin is how long a page or a status waits for what is still being read.
const answerWithin = 200 * time.Millisecond

// ReadOn has Run read the results up to the present. It returns false if that takes longer than answerWithin; Run goes on with it.
func (d *PageDigest) ReadOn(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	read := make(chan struct{})
	select {
	case d.asked <- read:
	case <-ctx.Done():
		return false
	}
	select {
	case <-read:
		return true
	case <-ctx.Done():
		return false
	}
}

// Run reads the results whenever the page needs them, until ctx ends. What can't be read is tried again the next time.
func (d *PageDigest) Run(ctx context.Context, conn *broker.Broker) error {
	var at broker.Cursor
	for {
		select {
		case <-ctx.Done():
			return nil
		case read := <-d.asked:
			if conn.ReadResults(ctx, &at, d.forget, func(m broker.Message) error { d.Add(m); return nil }) == nil {
				close(read)
			}
		}
	}
}

func (d *PageDigest) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latest, d.failures, d.Batches = nil, nil, map[string]*batchRows{}
}

// Add adds a result.
func (d *PageDigest) Add(m broker.Message) {
	var r message.Result
	if json.Unmarshal(m.Data, &r) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.request(resultRow(m.Time, r))
	if r.Final && slices.Contains([]string{message.Failed, message.TimedOut, message.Cancelled, message.Rejected, message.Abandoned}, r.Outcome) {
		d.failures = append(d.failures, resultRow(m.Time, r))
		d.failures = slices.Delete(d.failures, 0, max(len(d.failures)-shown, 0))
	}
	if r.Batch == "" || !message.IsOutcome(r.Outcome) || r.Outcome == message.AwaitingApproval {
		return
	}
	b, row := d.batch(r.Batch, m.Time), maphash.String(d.seed, r.RequestID)
	before, known := b.rows[row]
	if !known && len(b.rows) >= mostBatchRows {
		return
	}
	outcome := r.Outcome
	if !r.Final {
		outcome = "" // under way
	}
	if known {
		b.counts[before]--
	}
	b.rows[row] = outcome
	b.counts[outcome]++
}

// request replaces an earlier result of the request by the latest.
func (d *PageDigest) request(row admin.ResultRow) {
	d.latest = slices.DeleteFunc(d.latest, func(r admin.ResultRow) bool { return r.RequestID == row.RequestID && r.SignedBy == row.SignedBy })
	d.latest = append(d.latest, row)
	d.latest = slices.Delete(d.latest, 0, max(len(d.latest)-shownRequests, 0))
}

// batch returns the batch with the name. A new one evicts the batch without a result for the longest time, if there are too many.
func (d *PageDigest) batch(name string, at time.Time) *batchRows {
	b := d.Batches[name]
	if b == nil {
		b = &batchRows{rows: map[uint64]string{}, counts: map[string]int{}}
		d.Batches[name] = b
	}
	if at.After(b.last) {
		b.last = at
	}
	if len(d.Batches) > MostBatches {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(d.Batches)), func(a, b string) int { return d.Batches[a].last.Compare(d.Batches[b].last) })
		delete(d.Batches, oldest)
	}
	return b
}

// CountQueue counts the rows that wait, every 10 s at most, because it reads the whole queue.
func (d *PageDigest) CountQueue(ctx context.Context, conn *broker.Broker) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.counted) < countEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, countFor)
	defer cancel()
	for _, b := range d.Batches {
		b.waiting = 0
	}
	d.cut, d.waiting = false, nil
	rules, messages, bytes := message.Rules{Stream: conn.Names().Stream}, 0, 0
	for m, err := range conn.Queue(ctx) {
		if messages, bytes = messages+1, bytes+len(m.Data); ctx.Err() != nil || messages > countMost || bytes > countBytes {
			d.cut = true
			break
		}
		if err != nil {
			return err
		}
		r, invalid := rules.Parse(message.Delivery{Stream: rules.Stream, Sequence: m.Sequence, Subject: m.Subject, Header: m.Header, Data: m.Data, Published: m.Time})
		if invalid != nil {
			continue
		}
		d.waits(r, m.Time)
		if r.Batch == "" {
			continue
		}
		b := d.batch(r.Batch, m.Time)
		if _, hasResult := b.rows[maphash.String(d.seed, r.ID)]; !hasResult { // a row with a result is about to leave the queue
			b.waiting++
		}
	}
	d.counted = time.Now()
	return nil
}

// waits keeps the last messages of the queue. If a worker has one in hand already, its own page shows that.
func (d *PageDigest) waits(r message.Request, at time.Time) {
	d.waiting = append(d.waiting, admin.ResultRow{
		RequestID: r.ID, MachineID: r.MachineID, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Outcome: stateQueued, State: "in the queue", Time: at,
	})
	d.waiting = slices.Delete(d.waiting, 0, max(len(d.waiting)-shownWaiting, 0))
}

// requests returns the latest requests, each once. Only a few of them are waiting ones, so that a bulk leaves room for others.
func (d *PageDigest) requests() (rows []admin.ResultRow) {
	known := map[string]bool{}
	for _, r := range d.latest {
		if known[r.RequestID] = true; time.Since(r.Time) < 24*time.Hour {
			rows = append(rows, r)
		}
	}
	for _, r := range d.waiting {
		if !known[r.RequestID] {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b admin.ResultRow) int { return b.Time.Compare(a.Time) })
	return rows[:min(len(rows), shownRequests)]
}

// Show fills in what is kept, the latest first.
func (d *PageDigest) Show(r *admin.Recent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.Requests = d.requests()
	for _, f := range slices.Backward(d.failures) {
		if time.Since(f.Time) < 24*time.Hour {
			r.Failures = append(r.Failures, f)
		}
	}
	maps.DeleteFunc(d.Batches, func(_ string, b *batchRows) bool { return b.waiting == 0 && time.Since(b.last) > 24*time.Hour })
	names := slices.SortedFunc(maps.Keys(d.Batches), func(a, b string) int {
		return cmp.Or(d.Batches[b].last.Compare(d.Batches[a].last), cmp.Compare(a, b))
	})
	for _, name := range names[:min(len(names), shown)] {
		b := d.Batches[name]
		row := admin.Batch{Name: name, Outcomes: map[string]int{}, Followed: b.counts[""], Waiting: b.waiting, AtLeast: d.cut}
		for outcome, n := range b.counts {
			if outcome != "" && n > 0 {
				row.Outcomes[outcome] = n
			}
		}
		r.Batches = append(r.Batches, row)
	}
}
