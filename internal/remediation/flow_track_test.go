package remediation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/remediation"
)

func TestFinalStatusesAreToldApart(t *testing.T) {
	want := map[string]string{"Succeeded": "succeeded", "Failed": "failed", "TimeOut": "timedOut", "Cancelled": "cancelled"}
	inWorld(t, setup{api: defendersim.Config{UnknownFields: true}}, func(w *world) {
		machines := map[string]int{}
		for status := range want {
			machines[status] = 1 + len(machines)
			w.api.AddMachine(machine(machines[status]), defendersim.Machine{Outcome: status})
			w.ask(status, machines[status])
		}
		w.api.AddMachine(machine(9), defendersim.Machine{Outcome: "Whatever"}) // a status nobody knows is not final
		w.ask("unknown", 9)
		w.passes(2 * time.Minute)
		for status, outcome := range want {
			r := w.wantFinal(status, outcome)
			var action struct {
				Status string
				Future json.RawMessage `json:"futureField"`
			}
			w.must(json.Unmarshal(r.MachineAction, &action))
			if action.Status != status || !strings.Contains(string(action.Future), "123456789012345678901234567890") {
				t.Errorf("machineAction of %s: %s", status, r.MachineAction)
			}
		}
		w.wantOutcomes("unknown", "1 submitted")
	})
}

// All actions together cost one list call per interval, which widens to four times while nothing changes.
func TestManyActionsCostOneListPerInterval(t *testing.T) {
	inWorld(t, setup{api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: 20 * time.Minute, InProgress: 2 * time.Minute}}}, func(w *world) {
		const many = 60
		for n := range many {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(19 * time.Minute)
		if n := len(w.api.Calls()) - len(w.called("unrestrict")) - len(w.called("list")); n != 0 {
			t.Errorf("%d calls that are neither a call for a machine nor a list", n)
		}
		var gaps []time.Duration
		lists := w.called("list")
		for i := 1; i < len(lists); i++ {
			gaps = append(gaps, lists[i].At.Sub(lists[i-1].At))
		}
		for i, gap := range gaps {
			if gap < pollInterval || gap > 4*pollInterval+time.Second || i > 0 && gap < gaps[i-1] {
				t.Errorf("lists after %v", gaps)
				break
			}
		}
		if len(gaps) < 15 || gaps[len(gaps)-1] < 4*pollInterval {
			t.Errorf("lists after %v", gaps)
		}
		// A change brings the interval back.
		w.passes(3 * time.Minute)
		w.settled(2 * time.Minute)
		var shortest time.Duration
		for more := w.called("list"); len(lists) < len(more); lists = more[:len(lists)+1] {
			if gap := more[len(lists)].At.Sub(lists[len(lists)-1].At); shortest == 0 || gap < shortest {
				shortest = gap
			}
		}
		if shortest > pollInterval+time.Second {
			t.Errorf("at least %v between lists, though statuses changed", shortest)
		}
		n := len(lists)
		w.passes(10 * time.Minute)
		if more := len(w.called("list")) - n; more != 0 {
			t.Errorf("%d lists though nothing is followed", more)
		}
	})
}

// While requests wait for quota, following takes no more than 3 % of it.
func TestFollowingLeavesTheQuotaToWaitingRequests(t *testing.T) {
	limits := budget.Limits(20, 0)
	api := defendersim.Config{Limits: []defendersim.Limit{{Calls: 20, Per: time.Minute}}, Lifecycle: defendersim.Lifecycle{Pending: time.Hour}}
	inWorld(t, setup{limits: limits, api: api}, func(w *world) {
		for n := range 200 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(8 * time.Minute)
		lists, calls := len(w.called("list")), len(w.called("unrestrict"))
		if most := 8*20*3/100 + 1; lists > most || lists == 0 {
			t.Errorf("%d lists beside %d calls, want at most %d", lists, calls, most)
		}
		if calls < 8*20*9/10 {
			t.Errorf("%d calls, of %d allowed", calls, 8*20)
		}
	})
}

func TestActionThatStaysOpenTimesOut(t *testing.T) {
	for name, c := range map[string]struct {
		hidden  bool // from the list
		offline bool
		want    string
	}{
		"still open":                         {false, true, "timedOut trackTimeout"},
		"final, but the list never shows it": {true, false, "succeeded"},
		"open, and the list never shows it":  {true, true, "timedOut trackTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{follow: func(c *remediation.TrackConfig) { c.Timeout = 12 * time.Minute }}, func(w *world) {
				w.api.AddMachine(machine(1), defendersim.Machine{Offline: c.offline, Pending: 4 * time.Minute})
				if c.hidden {
					w.api.Inject(defendersim.Fault{Op: "list", Body: []byte(`{"value":[]}`)})
				}
				w.ask("r1", 1)
				w.passes(3 * time.Minute)
				w.wantOutcomes("r1", "1 submitted")
				w.settled(17 * time.Minute)
				r := w.wantFinal("r1", c.want)
				if strings.HasPrefix(c.want, "timedOut") {
					if took := r.FinishedAt.Sub(r.ReceivedAt); took < 12*time.Minute || len(r.MachineAction) == 0 || r.Error.Origin != "worker" {
						t.Errorf("after %v: %+v, action %s", took, r.Error, r.MachineAction)
					}
				}
				if n := len(w.called("get")); !c.hidden && n != 1 {
					t.Errorf("%d looks at the action by its id before it was given up", n)
				}
			})
		})
	}
}

// An id that the API itself gave, and refuses to look up, keeps nobody else from being followed.
func TestActionWhoseIDTheAPIRefuses(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Body: []byte(`{"value":[]}`)})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(1), Times: 1, Body: []byte(`{"id":"no-guid"}`)})
		w.ask("r1", 1)
		w.passes(time.Minute)
		w.ask("r2", 2)
		w.settled(15 * time.Minute)
		w.wantFinal("r2", "succeeded")
		w.wantFinal("r1", "failed actionVanished")
	})
}

func TestActionThatTheAPIForgetsHasVanished(t *testing.T) {
	for name, c := range map[string]struct {
		gone int // how many looks by id don't find it; 0: all
		want string
	}{
		"gone for good": {0, "failed actionVanished"},
		"gone twice":    {2, "succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: 8 * time.Minute}}}, func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "list", Body: []byte(`{"value":[]}`)})
				w.api.Inject(defendersim.Fault{Op: "get", Status: 404, Times: c.gone})
				w.ask("r1", 1)
				w.settled(30 * time.Minute)
				r := w.wantFinal("r1", c.want)
				gets := w.called("get")
				if c.gone == 0 && (len(gets) != 3 || gets[2].At.Sub(gets[0].At) < 2*time.Minute || r.Error.HTTPStatus != 404) {
					t.Errorf("looks by id: %+v, error %+v", gets, r.Error)
				}
			})
		})
	}
}

// An old action has more than a page of others' actions behind it: a newer one is on the second page.
func TestFollowingReadsEveryPage(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.AddMachine(machine(1), defendersim.Machine{Offline: true})
		w.ask("old", 1)
		w.until("the old action", time.Minute, func() bool { return len(w.api.Actions()) == 1 })
		w.passes(2 * time.Second)
		for n := range 10_100 {
			w.api.Put(defendersim.Action{MachineID: machine(10_000 + n), Comment: "by hand", Requestor: analyst, Status: "Succeeded"})
		}
		w.passes(2 * time.Second)
		w.ask("new", 2)
		w.passes(2 * time.Second)
		w.api.AddMachine(machine(1), defendersim.Machine{})
		w.settled(10 * time.Minute)
		w.wantFinal("new", "succeeded")
		w.wantFinal("old", "succeeded")
	})
}

// Following goes on by itself after whatever its list call met.
func TestFailedListOnlyDelaysTheEnd(t *testing.T) {
	for name, f := range map[string]defendersim.Fault{
		"500": {Status: 500}, "cut": {Cut: "body"}, "hangs": {Hang: true}, "unreadable": {Body: []byte("<html>")}, "429": {Status: 429, RetryAfter: 2 * time.Minute},
		"401": {Status: 401}, "empty": {Body: []byte(`{"value":[]}`)}, "without ids": {Body: []byte(`{"value":[{"status":"Failed"}]}`)}, "proxy": {Status: 404, Body: []byte("<html>")},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				f.Op, f.Times = "list", 3
				w.api.Inject(f)
				w.ask("r1", 1)
				w.settled(10 * time.Minute)
				w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
			})
		})
	}
}

// A list that is too long to arrive within the time-out is read in pieces: what has arrived is its beginning.
func TestListTooLongForTheTimeout(t *testing.T) {
	inWorld(t, setup{free: true}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Cut: "stall", CarriedOut: true}) // half of each answer arrives
		const n = 20
		for i := range n {
			w.ask(fmt.Sprint("r", i), i)
			w.passes(time.Second) // a page goes on from the time of the last one
		}
		ended := func() (ended int) {
			for i := range n {
				if w.entry(fmt.Sprint("r", i)).State == ledger.StateFinal {
					ended++
				}
			}
			return ended
		}
		w.until("most to end", 30*time.Minute, func() bool { return ended() >= n-4 }) // half of a list of a few is nothing
		w.api.ClearFaults()
		w.settled(10 * time.Minute)
		for i := range n {
			w.wantOutcomes(fmt.Sprint("r", i), "1 submitted", "1 succeeded.")
			w.wantPosts(i, 1)
		}
	})
}

// Without the permission to list, actions are followed as soon as it is granted; calls go on meanwhile.
func TestFollowingWaitsForThePermissionToList(t *testing.T) {
	inWorld(t, setup{free: true}, func(w *world) {
		w.tokens.grant("Machine.RestrictExecution")
		w.ask("r1", 1)
		w.passes(30 * time.Minute)
		w.ask("r2", 2)
		w.passes(2 * time.Minute)
		w.wantOutcomes("r1", "1 submitted")
		w.wantOutcomes("r2", "1 submitted")
		if !w.replicas[0].holds(health.MayNotList) {
			t.Error("nobody says that a permission is missing")
		}
		if _, on := w.replicas[0].breaker.Current(); on {
			t.Error("consumption is paused")
		}
		w.tokens.grant()
		w.settled(5 * time.Minute)
		w.wantFinal("r1", "succeeded")
		w.wantFinal("r2", "succeeded")
		if w.replicas[0].holds(health.MayNotList) {
			t.Error("still said")
		}
	})
}

// The API refuses every list. An action that is known is asked for by its id, a few at a time; a request whose call got lost
// waits, is not called again, and is not given up for it. Both are said, and end by themselves.
func TestRefusedListIsSaidAndWaitedOut(t *testing.T) {
	const body = `{"error":{"code":"","message":"The query specified in the URI is not valid. The node count limit of 100 has been exceeded."}}`
	hasty := func(c *remediation.SubmitConfig) { c.GiveUpAfter = impatience }
	inWorld(t, setup{submit: hasty, free: true}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Status: 400, Body: []byte(body)})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(1), Times: 1, Cut: "before", CarriedOut: true})
		w.ask("lost", 1)
		for n := range 8 {
			w.ask(fmt.Sprint("known", n), 10+n)
		}
		w.until("it to be said", 30*time.Second, func() bool { return w.replicas[0].holds(health.ListRefused) })
		for n := range 40 { // others are served meanwhile
			w.ask(fmt.Sprint("later", n), 100+n)
			w.passes(impatience / 5)
		}
		for n := range 8 {
			w.wantFinal(fmt.Sprint("known", n), "succeeded")
		}
		if r, ended := w.final("lost"); ended {
			t.Fatalf("ended in a fault of the system: %s %+v", r.Outcome, r.Error)
		}
		if c := w.replicas[0].notices.Conditions(); len(c) != 1 || !strings.Contains(c[0].Message, "node count limit") {
			t.Errorf("said: %+v", c)
		}
		w.wantPosts(1, 1)
		w.api.ClearFaults()
		w.settled(5 * time.Minute)
		w.wantFinal("lost", "succeeded")
		w.wantPosts(1, 1)
		if c := w.replicas[0].notices.Conditions(); len(c) != 0 {
			t.Errorf("still said: %+v", c)
		}
	})
}

// A list that always says that there is more, and shows nothing new, costs one call a round, and not the quota; it is said.
func TestEndlessListIsLeft(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.AddMachine(machine(1), defendersim.Machine{Offline: true})
		w.ask("r1", 1)
		w.passes(time.Minute)
		w.api.Inject(defendersim.Fault{Op: "list", Status: 200, Body: []byte(`{"value":[{"id":"old","type":"UnrestrictCodeExecution","machineId":"` + machine(7) + `","status":"Pending","creationDateTimeUtc":"2001-01-01T00:00:00Z"}],"@odata.nextLink":"https://elsewhere.example/"}`)})
		before := len(w.called("list"))
		w.until("it to be said", 3*time.Minute, func() bool { return w.replicas[0].holds(health.NotFollowing) })
		w.passes(2 * time.Minute)
		if n := len(w.called("list")) - before; n > 25 {
			t.Errorf("%d lists in five minutes", n)
		}
		w.api.ClearFaults()
		w.api.AddMachine(machine(1), defendersim.Machine{})
		w.settled(10 * time.Minute)
	})
}

// While lists fail, that actions are not followed is said within half a minute, and not for a single bad answer.
func TestNotFollowingIsSaid(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.AddMachine(machine(1), defendersim.Machine{Offline: true})
		w.ask("r1", 1)
		w.passes(time.Minute)
		w.api.Inject(defendersim.Fault{Op: "list", Status: 500, Times: 1})
		for range 24 {
			if w.passes(5 * time.Second); w.replicas[0].holds(health.NotFollowing) {
				t.Error("said for one bad answer")
			}
		}
		w.api.Inject(defendersim.Fault{Op: "list", Status: 500})
		failed := len(w.called("list"))
		w.until("a list that fails", 2*time.Minute, func() bool { return len(w.called("list")) > failed })
		w.until("it to be said", 30*time.Second, func() bool { return w.replicas[0].holds(health.NotFollowing) })
		w.api.ClearFaults()
		w.until("its end", 2*time.Minute, func() bool { return !w.replicas[0].holds(health.NotFollowing) })
		w.api.AddMachine(machine(1), defendersim.Machine{})
		w.settled(10 * time.Minute)
	})
}

// An action that the list does not show is asked for by its id. While that hangs it is said, though each list is answered, and
// another action that the list does not show is looked at all the same.
func TestActionThatCannotBeAskedForIsSaid(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Body: []byte(`{"value":[]}`)})
		w.api.Inject(defendersim.Fault{Op: "get", Machine: machine(1), Hang: true})
		w.ask("r1", 1)
		w.ask("r2", 2)
		w.until("it to be said", 5*time.Minute, func() bool { return w.replicas[0].holds(health.NotFollowing) })
		for range 24 {
			if w.passes(5 * time.Second); !w.replicas[0].holds(health.NotFollowing) {
				t.Fatal("it is not said all the time")
			}
		}
		w.wantFinal("r2", "succeeded")
		w.api.ClearFaults()
		w.until("its end", 2*time.Minute, func() bool { return !w.replicas[0].holds(health.NotFollowing) })
		w.settled(10 * time.Minute)
		w.wantFinal("r1", "succeeded")
	})
}
