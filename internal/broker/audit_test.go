package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"example.com/unrestrict-worker/internal/broker/trail"
)

func TestAuditIsChained(t *testing.T) {
	w := newAuditWorld(t)
	a := w.auditor("p")
	for n := range 5 {
		if err := a.Record(t.Context(), of(fmt.Sprint("r", n))); err != nil {
			t.Fatal(err)
		}
	}
	w.wantWhole()
	all := w.trail()
	for i, s := range all {
		l := lineOf(t, s)
		if l.Writer != "p-1" || l.N != uint64(i+1) || i > 0 && (trail.Point{Sequence: l.PrevSequence, SHA256: l.Prev}) != all[i-1].Point() {
			t.Errorf("message %d: %s", i+1, s.Data)
		}
	}
	if len(all) != 6 {
		t.Errorf("%d messages, want an opening and five records", len(all))
	}
}

// TestAuditAtOnce: many write at once, in several processes. Each process writes one chain, in the order in which it was
// asked.
func TestAuditAtOnce(t *testing.T) {
	w := newAuditWorld(t)
	var all sync.WaitGroup
	for p := range 2 {
		a := w.auditor(fmt.Sprint("process", p))
		for n := range 64 {
			all.Go(func() {
				for m := range 5 {
					if err := a.Record(t.Context(), of(fmt.Sprintf("r-%d-%d-%d", p, n, m))); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	if times := w.wantWhole(); len(times) != 2*64*5 {
		t.Errorf("%d requests recorded", len(times))
	}
	writers := map[string]bool{}
	for _, s := range w.trail() {
		writers[lineOf(t, s).Writer] = true
	}
	if n := len(writers); n != 2 {
		t.Errorf("%d writers, want one for each process", n)
	}
}

// TestAuditFaults: whatever becomes of an append, the caller who repeats it has his record, and no chain has a gap.
func TestAuditFaults(t *testing.T) {
	for _, strikes := range [][]string{
		{"refused"}, {"reply lost"}, {"stored late"}, // the opening
		{"", "refused"}, {"", "reply lost"}, {"", "stored late"}, // the first record
		{"", "", "refused"}, {"", "", "reply lost"}, {"", "", "stored late"}, // amid a chain
		{"", "", "reply lost", "refused", "stored late", "", "reply lost", "", "", "refused"},
	} {
		t.Run(strings.Join(strikes, ","), func(t *testing.T) {
			w := newAuditWorld(t)
			a := w.auditor("p")
			w.faulty.strike(strikes...)
			failed := 0
			for n := range 6 {
				for a.Record(t.Context(), of(fmt.Sprint("r", n))) != nil {
					failed++
				}
			}
			if failed == 0 {
				t.Error("no append has failed")
			}
			times := w.wantWhole()
			for n := range 6 {
				if times[fmt.Sprint("r", n)] == 0 {
					t.Errorf("r%d is not recorded", n)
				}
			}
		})
	}
}

// TestAuditFaultsAtOnce: faults among many that write at once.
func TestAuditFaultsAtOnce(t *testing.T) {
	w := newAuditWorld(t)
	a := w.auditor("p")
	var strikes []string
	for n := range 300 {
		strikes = append(strikes, []string{"", "", "refused", "", "reply lost", "", "", "stored late"}[n%8])
	}
	w.faulty.strike(strikes...)
	var all sync.WaitGroup
	for n := range 32 {
		all.Go(func() {
			for m := range 5 {
				for a.Record(t.Context(), of(fmt.Sprintf("r-%d-%d", n, m))) != nil {
				}
			}
		})
	}
	all.Wait()
	if times := w.wantWhole(); len(times) != 32*5 {
		t.Errorf("%d requests recorded", len(times))
	}
}

// TestAuditAfterDeath: who begins names the last message of whoever was before, and goes on in a chain of its own.
func TestAuditAfterDeath(t *testing.T) {
	w := newAuditWorld(t)
	for _, process := range []string{"first", "second"} {
		for n := range 2 {
			if err := w.auditor(process).Record(t.Context(), of(fmt.Sprint(process, n))); err != nil {
				t.Fatal(err)
			}
			process += "-again"
		}
	}
	w.wantWhole()
	all := w.trail()
	if l := lineOf(t, all[0]); l.Seen != nil {
		t.Errorf("the first saw %+v", l.Seen)
	}
	for i := 2; i < len(all); i += 2 {
		if l := lineOf(t, all[i]); l.Kind != trail.Opened || l.Seen == nil || *l.Seen != all[i-1].Point() {
			t.Errorf("message %d: %s", i+1, all[i].Data)
		}
	}
}

func TestAuditShortensWhatDoesNotFit(t *testing.T) {
	w := newAuditWorld(t)
	a := w.auditor("p")
	long := of("r")
	long.Comment, long.Ticket = strings.Repeat("ü", w.b.MaxPayload()/2), "T-1"
	if err := a.Record(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if got := lineOf(t, w.trail()[1]); !got.Shortened || len([]rune(got.Comment)) != 200 || got.Ticket != "T-1" || got.RequestID != "r" {
		t.Errorf("%+v", got)
	}
	w.wantWhole()
}

// TestAuditCantBeDeleted: the broker itself refuses to take a record out.
func TestAuditCantBeDeleted(t *testing.T) {
	w := newAuditWorld(t)
	if err := w.auditor("p").Record(t.Context(), of("r")); err != nil {
		t.Fatal(err)
	}
	s, err := w.b.js.Stream(t.Context(), AuditStream)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"delete": s.DeleteMsg(t.Context(), 1), "secure delete": s.SecureDeleteMsg(t.Context(), 1), "purge": s.Purge(t.Context()),
	} {
		if err == nil {
			t.Errorf("%s was let through", what)
		}
	}
	cfg := s.CachedInfo().Config
	cfg.DenyDelete, cfg.DenyPurge = false, false
	if _, err := w.b.js.UpdateStream(t.Context(), cfg); err == nil {
		t.Error("the stream's settings could be changed so that it can be deleted from")
	}
	w.wantWhole()
}

func TestAuditEndsWithItsCaller(t *testing.T) {
	w := newAuditWorld(t)
	a := w.auditor("p")
	<-a.turn // somebody writes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Record(ctx, of("r")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAuditWithoutAStream(t *testing.T) {
	w := newAuditWorld(t)
	a := w.auditor("p")
	if err := w.b.js.DeleteStream(t.Context(), AuditStream); err != nil {
		t.Fatal(err)
	}
	if err := a.Record(t.Context(), of("r")); !IsMissing(err) {
		t.Error(err)
	}
	if _, err := w.b.OpenAuditTrail(t.Context()); !IsMissing(err) {
		t.Error(err)
	}
}
