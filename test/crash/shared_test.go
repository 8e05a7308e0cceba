package crash_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// Three replicas share a limit to the full, of which normal leaves a part to urgent, and everything is killed and started anew
// within the window.
func TestSharedBudget(t *testing.T) {
	t.Parallel()
	const limit, kept, asked = 50, 3, 75 // kept: the default of 5 %, rounded up
	w := newWorld(t, options{
		env: []string{fmt.Sprint("WORKER_RATE_PER_MINUTE=", limit), "WORKER_TRACK=false"},
		api: defendersim.Config{Limits: []defendersim.Limit{{Calls: limit, Per: time.Minute}}},
	})
	w.readiness("")
	for n := range asked {
		w.ask(fmt.Sprint("budget-", n), defendersim.Machine{}, message.Submitted, nil)
	}
	until(t, time.Minute, func() string { return w.more(asked - limit + kept) })
	if n := w.posts(); n != limit-kept {
		t.Errorf("%d calls, of which normal may make %d", n, limit-kept)
	}
	for n := range kept {
		id := fmt.Sprint("urgent-", n)
		w.api.AddMachine(machineOf(id), defendersim.Machine{})
		w.publish(&request{id: id, machine: machineOf(id), lane: message.LaneUrgent, want: message.Submitted}, nil)
	}
	until(t, time.Minute, func() string { return w.more(asked + kept - limit) })
	for _, r := range w.replicas {
		r.kill()
	}
	w.brokers[0].kill()
	w.brokers[0].run()
	w.startAll()
	w.finish()

	calls := w.api.Calls()
	if n := w.api.Throttled(); n > 0 || len(calls) != asked+kept {
		t.Errorf("%d calls, of which %d were refused, want %d and none", len(calls), n, asked+kept)
	}
	// The least is a window: the fifty-first call can't be granted earlier than a minute and a grant's life after the first.
	t.Logf("%d calls took %v, at least %v", len(calls), calls[len(calls)-1].At.Sub(calls[0].At), time.Minute+budget.StartLimit)
}

// more says so if more than n requests are open.
func (w *world) more(n int) string {
	left, err := w.missing()
	if err != nil || len(left) > n {
		return fmt.Sprintf("%d left (%v)\n%s", len(left), err, w.logs("", 60))
	}
	return ""
}

// A pause stops every replica, those too that start during it, and loses nothing that was under way.
func TestPauseOverAllReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{api: defendersim.Config{Latency: time.Second}})
	w.readiness("")
	for n := range 30 {
		sane(w, fmt.Sprint("running-", n))
	}
	until(t, time.Minute, func() string { // amid the calls
		if w.posts() == 0 {
			return "no call"
		}
		return ""
	})
	w.command("pause", "--reason", "maintenance")
	w.readiness("paused")
	for n := range 15 {
		sane(w, fmt.Sprint("paused-", n))
	}
	// A replica finishes what it had in hand; no replica begins anything else.
	for _, r := range w.replicas {
		r.stop()
		r.start()
		until(t, time.Minute, func() string {
			if r.readiness() != "paused" {
				return r.name + " does not say that it is paused"
			}
			return ""
		})
	}
	w.brokers[0].kill()
	w.brokers[0].run()
	for _, r := range w.replicas {
		r.kill()
	}
	w.startAll()
	w.readiness("paused")
	for _, a := range w.api.Actions() {
		if strings.HasPrefix(a.Comment, "crash paused") {
			t.Errorf("carried out during the pause: %v", a)
		}
	}
	w.command("resume")
	w.readiness("")
	w.finish()
}

func (w *world) posts() (n int) {
	for _, c := range w.api.Calls() {
		if c.Op == "unrestrict" {
			n++
		}
	}
	return n
}

// command runs the worker as its operator does.
func (w *world) command(args ...string) {
	w.t.Helper()
	cmd := exec.Command(worker, args...)
	cmd.Env = []string{"NATS_URL=" + w.addrs()[0]}
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("worker %s: %v: %s", args[0], err, out)
	}
}
