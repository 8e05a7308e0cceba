package broker

import (
	"encoding/json"
	"testing"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// TestTallyRecordIsSmall: a day of all outcomes in every minute is kept in some kilobytes, and none of it is lost.
func TestTallyRecordIsSmall(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 7, 0, 0, time.UTC)
	tally, want := &Tally{counts: map[time.Time]map[string]int{}}, 0
	outcomes := []string{message.Succeeded, message.Submitted, message.DryRun, message.Failed, message.TimedOut, message.Cancelled, message.Rejected, message.Abandoned}
	for at := now; now.Sub(at) <= tallyOver+time.Hour; at = at.Add(-time.Minute) {
		for _, outcome := range outcomes {
			tally.add(at, map[string]int{outcome: 1})
			if now.Sub(at) <= tallyOver {
				want++
			}
		}
	}
	tally.age(now)
	sum := 0
	for at, counts := range tally.counts {
		for _, n := range counts {
			sum += n
		}
		if age := now.Sub(at); age > tallyOver || age > tallyFine && !at.Equal(at.Truncate(tallyCoarse)) {
			t.Errorf("%v is kept", at)
		}
	}
	if lost := want - sum; lost < 0 || lost >= 15*len(outcomes) { // the oldest quarter goes as a whole
		t.Errorf("%d results of %d", sum, want)
	}
	value, err := json.Marshal(tallyRecord{Cursor{now, 1 << 40}, tally.recordable(now)})
	if err != nil || len(value) > 32<<10 {
		t.Errorf("the record has %d bytes, %v", len(value), err)
	}
	if r, ok := readTally(value, now); !ok || len(r.Counts) != len(tally.counts) {
		t.Errorf("read again: %t, %d", ok, len(r.Counts))
	}
}

// TestTallyRecordThatIsFurtherStays: what a slow replica counted does not take the place of what another one recorded while
// it read.
func TestTallyRecordThatIsFurtherStays(t *testing.T) {
	b := newAuditWorld(t).b
	slow, fast := b.NewTally(0), b.NewTally(0)
	for _, tally := range []*Tally{slow, fast} { // slow has read one message when it is held up
		if _, err := b.js.Publish(t.Context(), "remediation.results", nil); err != nil {
			t.Fatal(err)
		}
		if err := tally.read(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tally := range []*Tally{fast, slow} {
		if err := tally.record(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := slow.store.Load(t.Context(), slow.key)
	if r, ok := readTally(stored.Value, time.Now()); err != nil || !ok || r.Next != 3 {
		t.Errorf("%s, %v", stored.Value, err)
	}
}

// TestTallyRecordThatIsNotWritten: a write that fails is made again, one whose answer is lost is not.
func TestTallyRecordThatIsNotWritten(t *testing.T) {
	for _, form := range []string{"refused", "reply lost"} {
		t.Run(form, func(t *testing.T) {
			w := newAuditWorld(t)
			b := newBroker(w.b.cfg, zap.NewNop())
			b.nc, b.js, b.state = w.b.nc, w.faulty, stream.NewBucket(w.faulty, StateBucket)
			tally := b.NewTally(0)
			w.faulty.strike(form)
			if err := tally.keep(t.Context(), 0); (err != nil) != (form == "refused") {
				t.Fatal(err)
			}
			if err := tally.keep(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			stored, err := tally.store.Load(t.Context(), tally.key)
			if _, ok := readTally(stored.Value, time.Now()); err != nil || !ok || tally.revision != stored.Revision {
				t.Errorf("%s, %v", stored.Value, err)
			}
		})
	}
}
