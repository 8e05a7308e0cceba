package main

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
	"example.com/unrestrict-worker/internal/remediation"
)

// digest keeps, for the page, what a stream of results is too long to be read for each time: the latest failures, and how
// far each batch is. It is told of each result of the last 24 hours once, in order (broker.Tally). What others choose is
// bounded: batches, their rows and what is read of the queue.
type digest struct {
	mu       sync.Mutex
	seed     maphash.Seed
	failures []admin.ResultRow // the latest last
	batches  map[string]*batchRows
	counted  time.Time // when the queue was counted
	cut      bool      // it was not read to its end
}

// batchRows are the rows of one batch by the outcome of each one's latest result.
type batchRows struct {
	rows    map[uint64]string
	counts  map[string]int
	waiting int
	last    time.Time
}

const (
	mostBatches   = 100     // kept, those with the latest results
	mostBatchRows = 100_000 // of one
	countEvery    = 10 * time.Second
	countFor      = 2 * time.Second
	countMost     = 10_000 // messages
	countBytes    = 16 << 20
)

func newDigest() *digest { return &digest{seed: maphash.MakeSeed(), batches: map[string]*batchRows{}} }

// add takes a result in.
func (d *digest) add(m broker.Message) {
	var r remediation.Result
	if json.Unmarshal(m.Data, &r) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Final && slices.Contains([]string{remediation.Failed, remediation.TimedOut, remediation.Cancelled, remediation.Rejected, remediation.Abandoned}, r.Outcome) {
		d.failures = append(d.failures, resultRow(m.Time, r))
		d.failures = slices.Delete(d.failures, 0, max(len(d.failures)-shown, 0))
	}
	if r.Batch == "" || !slices.Contains(outcomes(), r.Outcome) {
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

// batch is the one with the name, at the cost of the one that had a result the longest ago.
func (d *digest) batch(name string, at time.Time) *batchRows {
	b := d.batches[name]
	if b == nil {
		b = &batchRows{rows: map[uint64]string{}, counts: map[string]int{}}
		d.batches[name] = b
	}
	if at.After(b.last) {
		b.last = at
	}
	if len(d.batches) > mostBatches {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(d.batches)), func(a, b string) int { return d.batches[a].last.Compare(d.batches[b].last) })
		delete(d.batches, oldest)
	}
	return b
}

// countQueue counts the rows that wait, now and then: the whole queue must be read for it.
func (d *digest) countQueue(ctx context.Context, conn *broker.Broker) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.counted) < countEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, countFor)
	defer cancel()
	for _, b := range d.batches {
		b.waiting = 0
	}
	d.cut = false
	rules, messages, bytes := remediation.Rules{Stream: conn.Names().Stream}, 0, 0
	for m, err := range conn.Queue(ctx) {
		if messages, bytes = messages+1, bytes+len(m.Data); ctx.Err() != nil || messages > countMost || bytes > countBytes {
			d.cut = true
			break
		}
		if err != nil {
			return err
		}
		r, invalid := rules.Parse(remediation.Delivery{Stream: rules.Stream, Sequence: m.Sequence, Subject: m.Subject, Header: m.Header, Data: m.Data, Published: m.Time})
		if invalid != nil || r.Batch == "" {
			continue
		}
		b := d.batch(r.Batch, m.Time)
		if _, told := b.rows[maphash.String(d.seed, r.ID)]; !told { // else it is about to leave the queue
			b.waiting++
		}
	}
	d.counted = time.Now()
	return nil
}

// show puts into a view what is kept, the latest first.
func (d *digest) show(r *admin.Recent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range slices.Backward(d.failures) {
		if time.Since(f.Time) < 24*time.Hour {
			r.Failures = append(r.Failures, f)
		}
	}
	maps.DeleteFunc(d.batches, func(_ string, b *batchRows) bool { return b.waiting == 0 && time.Since(b.last) > 24*time.Hour })
	names := slices.SortedFunc(maps.Keys(d.batches), func(a, b string) int {
		return cmp.Or(d.batches[b].last.Compare(d.batches[a].last), cmp.Compare(a, b))
	})
	for _, name := range names[:min(len(names), shown)] {
		b := d.batches[name]
		row := admin.Batch{Name: name, Outcomes: map[string]int{}, Followed: b.counts[""], Waiting: b.waiting, AtLeast: d.cut}
		for outcome, n := range b.counts {
			if outcome != "" && n > 0 {
				row.Outcomes[outcome] = n
			}
		}
		r.Batches = append(r.Batches, row)
	}
}
