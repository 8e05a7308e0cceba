package remediation

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// A look that serves shows whatever was created since the time that is asked for and was listed when the look was due: of any
// list that an API gave, cut short or not.
func TestLookServes(t *testing.T) {
	at := func(t *rapid.T, name string) time.Time {
		return tableNow.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, name)) * time.Second)
	}
	rapid.Check(t, func(t *rapid.T) {
		l := look{begun: at(t, "begun"), since: at(t, "since"), whole: rapid.Bool().Draw(t, "whole")}
		created := at(t, "created")
		shown := l.whole && !created.Before(l.since) && !created.After(l.begun)
		n := need{begun: at(t, "due"), since: at(t, "called")}
		if !l.serves(n) {
			return
		}
		if !l.whole || l.begun.Before(n.begun) || l.since.After(n.since) {
			t.Fatalf("%+v counts for %+v", l, n)
		}
		if !created.Before(n.since) && !created.After(n.begun) && !shown {
			t.Fatalf("%+v counts for %+v and does not show what was created at %v", l, n, created)
		}
	})
	if (look{}).serves(need{}) {
		t.Error("no look counts")
	}
}

// However looks are made and by whom: before a run is called for again three different ones counted, each begun when it was
// due, the last one past the end of the call.
func TestThreeLooksCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := ordinary(ledger.StateUnknown)
		d, e := in.d, in.e
		e.LookFrom, e.LastCall, e.CalledAt = tableNow, tableNow.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "answered after"))*time.Second), tableNow.Add(-22*time.Second)
		var last look
		var counted []look
		now := tableNow
		for e.State == ledger.StateUnknown {
			now = now.Add(time.Duration(rapid.IntRange(1, 20_000).Draw(t, "then")) * time.Millisecond)
			if rapid.Bool().Draw(t, "somebody looks") {
				last = look{begun: now.Add(-time.Duration(rapid.IntRange(0, 5000).Draw(t, "took")) * time.Millisecond), since: e.CalledAt.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "reach")) * time.Second), whole: rapid.Bool().Draw(t, "whole")}
				last.call = ledger.Call{Operation: ledger.OpList, Time: last.begun}
			}
			f := in.f
			f.now, f.contended = now, rapid.Bool().Draw(t, "contended")
			if _, s := d.next(e, f); s.do != doLook {
				if s.after <= 0 || s.after > 2*lookAfter[2]*d.ReconcileDelay+d.Timeout {
					t.Fatalf("waits for %v", s.after)
				}
				continue
			}
			n := need{d.lookDue(e, f), e.CalledAt}
			if !last.serves(n) {
				begun := now
				if begun.Before(n.begun) {
					begun = n.begun // look sleeps until then
				}
				last = look{begun: begun, since: e.CalledAt, whole: true, call: ledger.Call{Operation: ledger.OpList, Time: begun}}
			}
			counted = append(counted, last)
			e.AddSharedLook(last.call)
			e, _ = d.looked(e, nil, f)
		}
		if len(counted) != 3 {
			t.Fatalf("%d looks", len(counted))
		}
		for i, l := range counted {
			if l.begun.Before(tableNow.Add(lookAfter[i]*d.ReconcileDelay)) || !l.whole || l.since.After(e.CalledAt) || i > 0 && !l.begun.After(counted[i-1].begun) {
				t.Fatalf("look %d began at %v: %+v", i+1, l.begun.Sub(tableNow), counted)
			}
		}
		if end := e.LastCall.Add(d.StartLimit + d.Timeout); counted[2].begun.Before(end) {
			t.Fatalf("the last look began %v before the call can have ended", end.Sub(counted[2].begun))
		}
	})
}

// One of those who wait looks for all: as far back as any of them needs. What fails, fails for all, but for the stop of the
// one that looks; what is not whole sends each to its own machine, and nobody tries again for a minute.
func TestOneLooksForAll(t *testing.T) {
	failure := errors.New("HTTP 503")
	for name, c := range map[string]struct {
		answers []error // of the lists, in turn; nil for good ones
		part    bool    // they are not whole
		stopped bool    // the first one that looks is stopped meanwhile
		lists   int
		want    error
	}{
		"good":      {answers: []error{nil}, lists: 1},
		"fails":     {answers: []error{failure}, lists: 1, want: failure},
		"not whole": {answers: []error{nil, nil}, part: true, lists: 1},
		"stopped":   {answers: []error{context.Canceled, nil}, stopped: true, lists: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l sharedLook
				var mu sync.Mutex
				var asked []time.Time
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				list := func(oldest func() time.Time) (look, error) {
					time.Sleep(time.Second)
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, oldest())
					made := look{begun: time.Now(), since: oldest(), whole: !c.part}
					time.Sleep(time.Second)
					if c.stopped && len(asked) == 1 {
						stop()
					}
					return made, c.answers[len(asked)-1]
				}
				began := time.Now()
				get := func(ctx context.Context, n int) (look, error) {
					return l.get(ctx, string(rune('a'+n)), need{began, began.Add(-time.Duration(n) * time.Minute)}, list)
				}
				var all sync.WaitGroup
				all.Go(func() {
					if _, err := get(ctx, 0); c.stopped != errors.Is(err, context.Canceled) || !c.stopped && !errors.Is(err, c.want) {
						t.Error(err)
					}
				})
				synctest.Wait()
				for n := range 9 {
					all.Go(func() {
						got, err := get(t.Context(), n+1)
						if _, others := errors.AsType[sharedLookError](err); !errors.Is(err, c.want) || others != (c.want != nil) || err == nil && got.whole == c.part {
							t.Errorf("%+v, %v", got, err)
						}
					})
				}
				all.Wait()
				if len(asked) != c.lists || !asked[0].Equal(began.Add(-9*time.Minute)) {
					t.Errorf("asked %v", asked)
				}
				if len(l.waiting) != 0 {
					t.Errorf("%v still wait", l.waiting)
				}
				if c.part {
					time.Sleep(notWholeFor)
					if _, err := get(t.Context(), 0); err != nil || len(asked) != 2 {
						t.Errorf("%v, %d lists", err, len(asked))
					}
				}
			})
		})
	}
}

// What the tracker follows is shown too by looks that are made anyway.
func TestLookReachesBackForTheTracker(t *testing.T) {
	var l sharedLook
	if got := l.reach(tableNow); !got.Equal(tableNow) {
		t.Error(got)
	}
	l.follow(tableNow.Add(-time.Hour))
	l.last = look{begun: tableNow, since: l.reach(tableNow), whole: true, actions: []defender.MachineAction{{ID: "a1"}}}
	if got, is := l.have(need{tableNow, tableNow.Add(-time.Hour)}); !is || !slices.ContainsFunc(got.actions, func(a defender.MachineAction) bool { return a.ID == "a1" }) {
		t.Error(got)
	}
}
