package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
)

// duplicates are the ways in which the API answers a call for a machine that has an open action.
var duplicates = map[string]defendersim.DuplicateMode{
	"400": defendersim.Duplicate400, "201 with the open action": defendersim.Duplicate201, "200 with the open action": defendersim.Duplicate200,
}

func TestActionUnderWayIsAdopted(t *testing.T) {
	for name, mode := range duplicates {
		for _, lag := range []time.Duration{0, 20 * time.Second} {
			t.Run(fmt.Sprintf("%s, listed after %v", name, lag), func(t *testing.T) {
				inWorld(t, setup{api: defendersim.Config{Duplicate: mode, ListLag: lag, Lifecycle: defendersim.Lifecycle{Pending: 3 * time.Minute}}}, func(w *world) {
					open := w.api.Put(defendersim.Action{MachineID: machine(1), Comment: "by hand", Requestor: analyst})
					w.ask("r1", 1)
					w.settled(10 * time.Minute)
					r := w.wantFinal("r1", "succeeded")
					if e := w.entry("r1"); e.ActionID != open.ID || !r.Adopted {
						t.Errorf("it follows %s, adopted %v; want %s", e.ActionID, r.Adopted, open.ID)
					}
					w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
				})
			})
		}
	}
}

// A run's own action, met again by its second call, is not another's.
func TestOwnActionUnderWayIsNotAdopted(t *testing.T) {
	for name, mode := range duplicates {
		t.Run(name, func(t *testing.T) {
			api := defendersim.Config{Duplicate: mode, ListLag: 50 * time.Second, Lifecycle: defendersim.Lifecycle{Pending: 3 * time.Minute}}
			inWorld(t, setup{api: api}, func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Cut: "before", CarriedOut: true})
				w.ask("r1", 1)
				w.settled(10 * time.Minute)
				if r := w.wantFinal("r1", "succeeded"); r.Adopted || r.Attempts < 2 {
					t.Errorf("adopted %v after %d attempts", r.Adopted, r.Attempts)
				}
			})
		})
	}
}

func TestMachineHeldByAnotherKindOfActionIsWaitedFor(t *testing.T) {
	inWorld(t, setup{api: defendersim.Config{OneAtATime: true}}, func(w *world) {
		w.api.AddMachine(machine(1), defendersim.Machine{Pending: 10 * time.Minute})
		w.api.Put(defendersim.Action{Type: "Isolate", MachineID: machine(1), Comment: "by hand", Requestor: analyst})
		w.api.AddMachine(machine(1), defendersim.Machine{})
		w.ask("r1", 1)
		w.passes(9 * time.Minute)
		w.wantOutcomes("r1")
		w.settled(10 * time.Minute)
		if r := w.wantFinal("r1", "succeeded"); r.Adopted {
			t.Error("adopted")
		}
		if _, on := w.replicas[0].breaker.Current(); on {
			t.Error("one request's conflict pauses all")
		}
	})
}

func TestTwoRequestsForOneMachineEndEachByItself(t *testing.T) {
	for name, mode := range duplicates {
		for _, replicas := range []int{1, 3} {
			for _, open := range []time.Duration{-1, time.Minute} { // how long the first one's action stays open
				t.Run(fmt.Sprintf("%s, %d replicas, open for %v", name, replicas, open), func(t *testing.T) {
					api := defendersim.Config{Duplicate: mode, Latency: 500 * time.Millisecond, Lifecycle: defendersim.Lifecycle{Pending: open, InProgress: -1}}
					inWorld(t, setup{api: api, replicas: replicas}, func(w *world) {
						w.ask("r1", 1)
						w.ask("r2", 1)
						w.settled(10 * time.Minute)
						adopted := 0
						for _, id := range []string{"r1", "r2"} {
							w.wantOutcomes(id, "1 submitted", "1 succeeded.")
							if w.wantFinal(id, "succeeded").Adopted {
								adopted++
							}
						}
						if want := map[bool]int{true: 1, false: 0}[open > 0]; adopted != want || len(w.api.Actions()) != 2-want {
							t.Errorf("%d adopted of %d actions, want %d", adopted, len(w.api.Actions()), want)
						}
					})
				})
			}
		}
	}
}

// Two requests may even have the same comment: neither takes the other's action for its own when it looks for its call.
func TestSameCommentTwiceForOneMachine(t *testing.T) {
	for _, done := range []bool{false, true} {
		for _, replicas := range []int{1, 2} {
			t.Run(fmt.Sprintf("carried out %v, %d replicas", done, replicas), func(t *testing.T) {
				api := defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: -1, InProgress: -1}, Latency: 100 * time.Millisecond}
				inWorld(t, setup{api: api, replicas: replicas}, func(w *world) {
					w.sharing = map[string]int{"same": 2}
					w.ask("r1", 1, field{"comment", `"same"`})
					w.until("the first call", time.Minute, func() bool { return w.entry("r1").ActionID != "" })
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: done})
					w.ask("r2", 1, field{"comment", `"same"`})
					w.settled(10 * time.Minute)
					w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
					w.wantOutcomes("r2", "1 submitted", "1 succeeded.")
					if a, b := w.entry("r1").ActionID, w.entry("r2").ActionID; a == b || len(w.api.Actions()) != 2 {
						t.Errorf("actions %s and %s of %d", a, b, len(w.api.Actions()))
					}
					if w.wantFinal("r2", "succeeded").Adopted {
						t.Error("adopted")
					}
				})
			})
		}
	}
}

// While one request's call is looked for, no other call is made for the machine; for other machines they are.
func TestOneCallAtATimePerMachine(t *testing.T) {
	inWorld(t, setup{replicas: 2}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503})
		w.ask("r1", 1)
		w.until("the first call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateUnknown })
		w.ask("r2", 1)
		w.ask("r3", 3)
		w.passes(28 * time.Second)
		w.wantPosts(1, 1)
		w.wantFinal("r3", "succeeded")
		w.settled(5 * time.Minute)
		w.wantFinal("r1", "succeeded")
		w.wantFinal("r2", "succeeded")
	})
}

// A request that waits for another one's call for the same machine says so in its entry, until that is over.
func TestBusyMachineIsSaid(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(1), Times: 1, Status: 503})
		w.ask("first", 1)
		w.passes(time.Second)
		w.ask("second", 1)
		w.passes(3 * time.Second)
		if e := w.entry("second"); e.State != ledger.StateWaiting || e.LastError == nil || e.LastError.Code != "machineBusy" {
			t.Errorf("%s, %+v", e.State, e.LastError)
		}
		w.settled(10 * time.Minute)
		if e := w.entry("second"); e.LastError != nil {
			t.Errorf("ended with %+v", e.LastError)
		}
	})
}
