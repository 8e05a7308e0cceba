package remediation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/remediation"
)

// atOnce is an API whose actions end at once, so that it does not refuse a second call.
var atOnce = defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: -1, InProgress: -1}}

// A process dies in its call, and nobody is there for longer than a machine is held, or its record kept. That the machine
// has another holder by then, or none, proves nothing: the call is looked for.
func TestCallOfLongAgoIsLookedFor(t *testing.T) {
	anHour := func(c *remediation.SubmitConfig) {
		untracked(c)
		c.GiveUpAfter = time.Hour
	}
	t.Run("the machine's record has expired", func(t *testing.T) {
		inWorld(t, setup{untended: true, submit: anHour, api: atOnce}, func(w *world) {
			w.faults.inject(fault{at: atPost, done: true, dies: true, times: 1})
			w.ask("r1", 1)
			w.until("the death", time.Minute, func() bool { return w.living() == 0 })
			w.forget("m.")
			w.passes(2 * time.Hour)
			w.start()
			w.settled(10 * time.Minute)
			w.wantPosts(1, 1)
			w.wantFinal("r1", "submitted")
		})
	})
	for _, away := range []time.Duration{50 * time.Minute, 70 * time.Minute} {
		t.Run(away.String()+", and another wants the machine", func(t *testing.T) {
			inWorld(t, setup{untended: true, free: true, submit: anHour, api: atOnce}, func(w *world) {
				for n := range 41 { // r2 waits, and comes again before r1, which is out of sight behind the others
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 404, Machine: machine(max(1, 100*n))})
				}
				w.ask("r2", 1)
				for n := range 40 {
					w.ask(fmt.Sprint("other", n+1), 100*(n+1))
				}
				w.passes(time.Second)
				w.faults.inject(fault{at: atPost, done: true, dies: true, times: 1})
				w.ask("r1", 1)
				w.until("the death", time.Minute, func() bool { return w.living() == 0 })
				w.passes(away)
				w.start()
				w.settled(30 * time.Minute)
				w.wantFinal("r1", "submitted")
				w.wantFinal("r2", "submitted")
				if n := w.actionsOf("r1"); n != 1 {
					t.Errorf("%d actions", n)
				}
			})
		})
	}
}

// actionsOf is how often a request was carried out, told by its comment.
func (w *world) actionsOf(id string) (n int) {
	for _, a := range w.api.Actions() {
		if a.Comment == commentOf(id) {
			n++
		}
	}
	return n
}

// However soon requests are given up: a machine is another's while its call can be under way.
func TestMachineIsHeldThroughItsCall(t *testing.T) {
	inWorld(t, setup{replicas: 2, untended: true, api: atOnce, submit: func(c *remediation.SubmitConfig) {
		c.Track, c.GiveUpAfter = false, 10*time.Second
	}}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Latency: 25 * time.Second})
		w.ask("r1", 1)
		w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateCalled })
		w.ask("r2", 1)
		w.passes(19 * time.Second)
		if n := len(w.posts(1)); n > 1 {
			t.Errorf("%d calls for one machine at a time", n)
		}
		w.replica(w.entry("r1").Owner).kill()
		w.settled(10 * time.Minute)
		if n := w.actionsOf("r1"); n != 1 {
			t.Errorf("%d actions", n)
		}
	})
}

// skewed is the ledger of a process whose clock is ahead.
type skewed struct {
	faultyLedger
	by time.Duration
}

func (l skewed) SaveBoth(ctx context.Context, intent, hold ledger.Write) (ledger.Saved, ledger.Saved) {
	if e, err := ledger.DecodeEntry(ledger.Record{Value: intent.Value}); err == nil {
		e.LastCall, e.CalledAt = e.LastCall.Add(l.by), e.CalledAt.Add(l.by)
		intent.Value, _ = json.Marshal(e)
	}
	return l.faultyLedger.SaveBoth(ctx, intent, hold)
}

// The first call of a process, which has not heard the API's time yet, is found by another one, whatever their clocks say.
func TestCallOfAProcessWithAnotherClock(t *testing.T) {
	for _, by := range []time.Duration{-5 * time.Second, time.Second, 3 * time.Second, 5 * time.Second, time.Minute} {
		t.Run(by.String(), func(t *testing.T) {
			inWorld(t, setup{replicas: -1, untended: true, submit: untracked, api: atOnce}, func(w *world) {
				w.passes(700 * time.Millisecond)
				w.launch(func(r *replica) { r.submitter.Ledger = skewed{r.submitter.Ledger.(faultyLedger), by} })
				w.faults.inject(fault{at: atPost, done: true, dies: true, times: 1})
				w.ask("r1", 1)
				w.until("the death", time.Minute, func() bool { return w.living() == 0 })
				w.start()
				w.settled(10 * time.Minute)
				w.wantPosts(1, 1)
				w.wantFinal("r1", "submitted")
			})
		})
	}
}

// A call that the list shows late has made the action that a further call meets: it is this run's, though it has ended by
// the time of the look.
func TestOwnActionThatHasEndedIsFound(t *testing.T) {
	api := defendersim.Config{ListLag: 40 * time.Second, Lifecycle: defendersim.Lifecycle{Pending: 20 * time.Second, InProgress: 5 * time.Second}}
	inWorld(t, setup{untended: true, submit: untracked, api: api}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: true})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Latency: 12 * time.Second, Status: 400, Code: "ActiveRequestAlreadyExists"})
		w.ask("r1", 1)
		w.settled(10 * time.Minute)
		w.wantPosts(1, 2)
		if r := w.wantFinal("r1", "submitted"); r.Adopted {
			t.Errorf("%+v", r)
		}
	})
}

// What is known already costs no call of the budget.
func TestKnownRequestsCostNoCall(t *testing.T) {
	inWorld(t, setup{untended: true, limits: budget.Limits(20, 0), submit: untracked}, func(w *world) {
		for n := range 18 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.settled(time.Minute)
		w.passes(2 * time.Minute)
		for n := range 18 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.settled(time.Second)
		left, err := w.replicas[0].budget.Remaining(w.ctx)
		w.must(err)
		if left[0].Remaining != 20 {
			t.Errorf("%+v", left)
		}
	})
}

// slow is a ledger whose broker takes its time over intents, slowGrants one that does so over grants.
type slow struct {
	faultyLedger
	by *time.Duration
}

func (l slow) SaveBoth(ctx context.Context, intent, hold ledger.Write) (ledger.Saved, ledger.Saved) {
	time.Sleep(*l.by)
	return l.faultyLedger.SaveBoth(ctx, intent, hold)
}

func (l slow) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	time.Sleep(*l.by)
	return l.faultyLedger.Save(ctx, w)
}

type slowGrants struct {
	budget.Store
	by *time.Duration
}

func (s slowGrants) Take(ctx context.Context, window string, last *uint64) (bool, error) {
	select {
	case <-time.After(*s.by):
		return s.Store.Take(ctx, window, last)
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// slowly is a world with limits in force in which one replica has a broker that takes its time.
func slowly(t *testing.T, intents, grants *time.Duration, test func(w *world, r *replica)) {
	t.Helper()
	inWorld(t, setup{
		replicas: -1, untended: true, limits: budget.Limits(100, 1500), submit: untracked,
		grants: func(s budget.Store) budget.Store { return slowGrants{s, grants} },
	}, func(w *world) {
		test(w, w.launch(func(r *replica) { r.submitter.Ledger = slow{r.submitter.Ledger.(faultyLedger), intents} }))
	})
}

// Where an intent takes long, but not so long that the grant is too old by then, calls go out and few grants are wasted.
func TestSlowIntents(t *testing.T) {
	for _, by := range []time.Duration{100 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(by.String(), func(t *testing.T) {
			quick := time.Duration(0)
			slowly(t, &by, &quick, func(w *world, r *replica) {
				for n := range 20 {
					w.ask(fmt.Sprint("r", n), n)
				}
				w.settled(10 * time.Minute)
				for n := range 20 {
					w.wantFinal(fmt.Sprint("r", n), "submitted")
					w.wantPosts(n, 1)
				}
				left, err := r.budget.Remaining(w.ctx)
				w.must(err)
				if n := left[1].Remaining; n < 1500-3*20 {
					t.Errorf("%d calls are left of the hour", n)
				}
			})
		})
	}
}

// Where the broker is so slow that every granted call is too old before it begins, readiness says so, the budget is not
// burnt, and it goes on by itself.
func TestSlowBrokerIsAFault(t *testing.T) {
	for _, waiting := range []int{20, 1} {
		t.Run(fmt.Sprint(waiting), func(t *testing.T) {
			by := startLimit/2 + 100*time.Millisecond // two of the broker's answers make a grant
			slowly(t, &by, &by, func(w *world, r *replica) {
				for n := range waiting {
					w.ask(fmt.Sprint("r", n), n)
				}
				w.passes(10 * time.Minute)
				if f, on := r.breaker.Current(); !on || f.Code != "slowBroker" || !strings.Contains(f.Reason, by.String()) {
					t.Errorf("fault %+v", f)
				}
				left, err := r.budget.Remaining(w.ctx)
				w.must(err)
				if n := left[1].Remaining; n < 1300 {
					t.Errorf("%d calls are left of the hour", n)
				}
				by = time.Millisecond
				w.settled(10 * time.Minute)
				for n := range waiting {
					w.wantFinal(fmt.Sprint("r", n), "submitted")
				}
				if f, on := r.breaker.Current(); on {
					t.Errorf("still a fault: %+v", f)
				}
			})
		})
	}
}

// With a limit in force following is never blind for long: some calls are left to it by every replica, also while it
// happens to have nothing to follow.
func TestFollowingIsLeftSomeCalls(t *testing.T) {
	inWorld(t, setup{replicas: 2, limits: budget.Limits(20, 100), api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: 5 * time.Second}}}, func(w *world) {
		for n := range 110 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(40 * time.Minute) // the hour's calls are spent after some five
		w.refresh()
		finals := 0
		for _, r := range w.told {
			if r.Final {
				finals++
			}
		}
		if calls := len(w.called("unrestrict")); finals != calls || calls < 90 {
			t.Errorf("%d of %d calls are known to have ended", finals, calls)
		}
	})
}
