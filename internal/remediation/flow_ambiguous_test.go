package remediation_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/remediation"
)

// unclear are all answers that do not tell whether the call took place.
var unclear = map[string]defendersim.Fault{
	"408":              {Status: 408},
	"500":              {Status: 500},
	"502 of a proxy":   {Status: 502, Body: []byte("<html>Bad Gateway</html>")},
	"503":              {Status: 503},
	"504":              {Status: 504},
	"599":              {Status: 599},
	"cut before":       {Cut: "before"},
	"cut headers":      {Cut: "headers"},
	"cut body":         {Cut: "body"},
	"hangs":            {Hang: true},
	"unreadable":       {Body: []byte("<html>all is well</html>")},
	"bears no action":  {Body: []byte("{}")},
	"empty":            {Status: 201, Body: []byte(" ")},
	"another's action": {Body: []byte(`{"id":"1","machineId":"` + strings.Repeat("f", 40) + `","type":"UnrestrictCodeExecution"}`)},
}

const (
	refused    = 1 // machine whose call is refused with an unclear answer
	carriedOut = 2 // machine whose call takes place although the answer is unclear
)

// lookUps are the lists that look for calls: for several types, of which there is one, or for this machine. The tracker's ask
// for one type.
func (w *world) lookUps(n int) (calls []defendersim.Call) {
	for _, c := range w.called("list") {
		if strings.Contains(c.Query, "%28type%20eq%20%27UnrestrictCodeExecution") || strings.Contains(c.Query, machine(n)) {
			calls = append(calls, c)
		}
	}
	return calls
}

// TestUnclearAnswerIsLookedUp: each unclear answer in both forms, and a list that shows an action only after a while.
func TestUnclearAnswerIsLookedUp(t *testing.T) {
	for name, f := range unclear {
		lags := []time.Duration{0}
		if name == "503" {
			lags = append(lags, 3*time.Second, 20*time.Second)
		}
		for _, lag := range lags {
			t.Run(fmt.Sprintf("%s, listed after %v", name, lag), func(t *testing.T) {
				inWorld(t, setup{api: defendersim.Config{ListLag: lag}}, func(w *world) {
					for n, done := range map[int]bool{refused: false, carriedOut: true} {
						f := f
						f.Op, f.Times, f.Machine, f.CarriedOut = "unrestrict", 1, machine(n), done
						w.api.Inject(f)
					}
					w.ask("refused", refused)
					w.ask("carried out", carriedOut)
					w.until("the calls", time.Minute, func() bool { return len(w.posts(refused)) == 1 && len(w.posts(carriedOut)) == 1 })
					w.settled(5 * time.Minute)

					if r := w.wantFinal("carried out", "succeeded"); r.Attempts != 1 || r.Adopted {
						t.Errorf("carried out: attempts %d, adopted %v", r.Attempts, r.Adopted)
					}
					w.wantPosts(carriedOut, 1)
					if r := w.wantFinal("refused", "succeeded"); r.Attempts != 2 || r.Adopted {
						t.Errorf("refused: attempts %d, adopted %v", r.Attempts, r.Adopted)
					}
					w.wantPosts(refused, 2)
					if first, at := w.posts(refused)[0].At, w.entry("refused").CalledAt; at.After(first) || first.Sub(at) > 5*time.Second {
						t.Errorf("the run's first call was at %v, the ledger says %v", first, at)
					}
					w.wantLooksBefore(refused, f.Hang)
				})
			})
		}
	}
}

// wantLooksBefore: between the first and the second call there were three looks, 1, 3 and 6 delays after the answer.
func (w *world) wantLooksBefore(n int, hung bool) {
	w.t.Helper()
	posts, looks := w.posts(n), w.lookUps(n)
	if len(looks) != 3 || len(posts) != 2 {
		w.t.Fatalf("%d looks before %d calls, want 3 before the second\n%s", len(looks), len(posts), w.dump())
	}
	answered := posts[0].At
	if hung {
		answered = answered.Add(timeout)
	}
	const slack = 100 * time.Millisecond
	for i, delays := range []time.Duration{1, 3, 6} {
		if after := looks[i].At.Sub(answered); after < delays*reconcileDelay-slack {
			w.t.Errorf("look %d came %v after the answer, want %v", i+1, after, delays*reconcileDelay)
		}
	}
	if posts[1].At.Before(looks[2].At) || posts[1].At.Sub(posts[0].At) < timeout-slack {
		w.t.Errorf("called again %v after the first call", posts[1].At.Sub(posts[0].At))
	}
}

// However short the delay, no second call is made before the first one must have timed out.
func TestNoSecondCallBeforeTheFirstCanHaveTimedOut(t *testing.T) {
	hasty := func(c *remediation.SubmitConfig) { c.ReconcileDelay, c.Track = time.Second, false }
	inWorld(t, setup{submit: hasty, untended: true}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Cut: "before"})
		w.ask("r1", 1)
		w.settled(5 * time.Minute)
		posts := w.posts(1)
		if len(posts) != 2 || posts[1].At.Sub(posts[0].At) < timeout || len(w.lookUps(1)) != 3 {
			t.Errorf("calls %+v, %d looks", posts, len(w.lookUps(1)))
		}
	})
}

// A request that expires while it is looked for ends as what the look shows; only a further call is not made.
func TestExpiryIsNotJudgedWhileACallIsLookedFor(t *testing.T) {
	inWorld(t, setup{api: defendersim.Config{ListLag: 20 * time.Second}}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(refused), Times: 1, Status: 503})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(carriedOut), Times: 1, Status: 503, CarriedOut: true})
		w.ask("refused", refused, expiresIn(8*time.Second))
		w.ask("carried out", carriedOut, expiresIn(8*time.Second))
		w.settled(5 * time.Minute)
		w.wantFinal("carried out", "succeeded")
		w.wantFinal("refused", "rejected expired")
		w.wantPosts(refused, 1)
		w.wantPosts(carriedOut, 1)
		if n := len(w.lookUps(refused)); n != 3 {
			t.Errorf("%d looks before it was given up", n)
		}
	})
}

// An action that is listed later than all looks is still found after the next unclear call.
func TestFirstCallIsKeptInMindForTheWholeRun(t *testing.T) {
	api := defendersim.Config{ListLag: 40 * time.Second, Lifecycle: defendersim.Lifecycle{Pending: time.Hour}}
	inWorld(t, setup{api: api}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: true})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503})
		w.ask("r1", 1)
		w.until("the action to be found", 5*time.Minute, func() bool { return w.entry("r1").State == ledger.StateSubmitted })
		e := w.entry("r1")
		if a := w.api.Actions()[0]; e.ActionID != a.ID || e.Adopted || e.Attempts != 2 {
			t.Errorf("entry %+v, want action %s of its own after 2 calls", e, a.ID)
		}
		w.wantPosts(1, 2)
		w.settled(2 * time.Hour)
	})
}

// What each failure of a look means is a row of the table.
func TestFailedLookCountsForNothing(t *testing.T) {
	for name, f := range map[string]defendersim.Fault{
		"500": {Status: 500}, "hangs": {Hang: true}, "an entity without id": {Body: []byte(`{"value":[{"type":"UnrestrictCodeExecution"}]}`)},
		"429": {Status: 429, RetryAfter: time.Minute},
	} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, carried out %v", name, done), func(t *testing.T) {
				inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: done})
					f.Op, f.Times = "list", 4
					w.api.Inject(f)
					w.ask("r1", 1)
					w.settled(time.Hour)
					w.wantFinal("r1", "submitted")
					posts, good := 2, 0
					if done {
						posts = 1
					}
					w.wantPosts(1, posts)
					for _, c := range w.lookUps(1)[4:] {
						if c.Status == 200 {
							good++
						}
					}
					if want := map[bool]int{true: 1, false: 3}[done]; good != want {
						t.Errorf("%d looks that count, want %d\n%s", good, want, w.dump())
					}
				})
			})
		}
	}
}

// Without the permission to list, a request whose call is in doubt waits for it, however long; all others go on.
func TestForbiddenLookParksTheRequestUntilGranted(t *testing.T) {
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("carried out %v", done), func(t *testing.T) {
			inWorld(t, setup{free: true, untended: true, submit: impatient}, func(w *world) {
				w.tokens.grant("Machine.RestrictExecution")
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: done})
				w.ask("in doubt", 1)
				w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
				w.passes(10 * time.Second)
				w.ask("other", 2)
				w.ends("other")
				w.passes(outage)
				w.wantPosts(1, 1)
				if _, ended := w.final("in doubt"); ended {
					t.Errorf("it did not wait\n%s", w.dump())
				}
				if !w.replicas[0].holds(health.MayNotList) {
					t.Error("nobody says that a permission is missing")
				}
				w.tokens.grant()
				w.settled(time.Hour)
				w.wantFinal("in doubt", "submitted")
				w.wantPosts(1, map[bool]int{true: 1, false: 2}[done])
				if w.replicas[0].holds(health.MayNotList) {
					t.Error("the permission is still said to be missing")
				}
			})
		})
	}
}

// impatience is a short WORKER_GIVE_UP_AFTER: the promises about it hold for any.
const impatience = 2 * time.Minute

// outage is longer than that.
const outage = 2 * impatience

func impatient(c *remediation.SubmitConfig) { c.Track, c.GiveUpAfter = false, impatience }

// An API that answers late is no clock that is off: the answers of calls that are carried out at once and answered after
// seconds keep no other call from being found.
func TestLateAnswersDoNotHideACall(t *testing.T) {
	inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
		for n := range 3 {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(n), Latency: 12 * time.Second, Status: 201, CarriedOut: true})
			w.ask(fmt.Sprint("slow", n), n)
			w.passes(15 * time.Second)
		}
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(7), Cut: "before", CarriedOut: true, Times: 1})
		w.ask("lost", 7)
		w.settled(5 * time.Minute)
		w.wantPosts(7, 1)
		for n := range 3 {
			if r := w.wantFinal(fmt.Sprint("slow", n), "submitted"); r.Adopted {
				t.Errorf("slow%d: its own action counts as adopted", n)
			}
		}
		if r := w.wantFinal("lost", "submitted"); r.Adopted {
			t.Error("lost: its own action counts as adopted")
		}
	})
}

// The first call of a process that knows nothing of the API's clock is found wherever that clock is, and nobody else's
// older action is taken for it.
func TestFirstCallIsFoundByAnUnknownClock(t *testing.T) {
	for _, skew := range []time.Duration{0, -3 * time.Hour, -30 * time.Minute, 3 * time.Hour} {
		for _, carriedOut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, carried out %v", skew, carriedOut), func(t *testing.T) {
				inWorld(t, setup{api: defendersim.Config{ClockOffset: skew}, untended: true, submit: untracked}, func(w *world) {
					older := w.api.Put(defendersim.Action{MachineID: machine(1), Comment: commentOf("r1"), Created: time.Now().Add(skew - 5*time.Minute), Status: "Succeeded"})
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Cut: "before", CarriedOut: carriedOut})
					w.ask("r1", 1)
					w.settled(5 * time.Minute)
					w.wantPosts(1, map[bool]int{true: 1, false: 2}[carriedOut])
					if e := w.entry("r1"); e.ActionID == older.ID || e.Adopted {
						t.Errorf("action %s, adopted %v", e.ActionID, e.Adopted)
					}
				})
			})
		}
	}
}

// What answers in Defender's place may have passed the call on: it is looked for before it is made again.
func TestForeignAnswerIsLookedUp(t *testing.T) {
	for name, f := range map[string]defendersim.Fault{
		"redirect": {Status: 302}, "proxy's 403": {Status: 403, Body: []byte("<html>Forbidden</html>")},
		"proxy's 404": {Status: 404, Body: []byte("<html>Not Found</html>")}, "proxy's 407": {Status: 407, Body: []byte("<html>Sign in</html>")},
		"an empty 404": emptyNotFound, "an empty 405": {Status: 405, Body: []byte{}},
	} {
		for _, carriedOut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, carried out %v", name, carriedOut), func(t *testing.T) {
				inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
					f.Op, f.Times, f.CarriedOut = "unrestrict", 1, carriedOut
					w.api.Inject(f)
					w.ask("r1", 1)
					w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
					w.passes(100 * time.Millisecond)
					if fault, on := w.replicas[0].breaker.Current(); !on {
						t.Errorf("nobody is told: %+v", fault)
					}
					w.settled(5 * time.Minute)
					w.wantFinal("r1", "submitted")
					w.wantPosts(1, map[bool]int{true: 1, false: 2}[carriedOut])
					if n := len(w.lookUps(1)); !carriedOut && n != 3 || n == 0 {
						t.Errorf("%d looks", n)
					}
				})
			})
		}
	}
}

// A list that the API cuts short is read on, and one that shows nothing proves nothing.
func TestListCutShortDoesNotHideACall(t *testing.T) {
	inWorld(t, setup{api: defendersim.Config{PageSize: 2}, untended: true, submit: untracked}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Times: 2, Status: 200, Body: []byte(`{"value":[],"@odata.nextLink":"https://127.0.0.1/api/machineactions?$skip=1"}`)})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Cut: "before", CarriedOut: true})
		for n := range 4 {
			w.api.Put(defendersim.Action{MachineID: machine(1), Comment: "somebody else's", Created: time.Now().Add(-time.Duration(n+1) * 100 * time.Millisecond), Status: "Succeeded"})
		}
		w.ask("r1", 1)
		w.settled(5 * time.Minute)
		w.wantFinal("r1", "submitted")
		w.wantPosts(1, 1)
	})
}
