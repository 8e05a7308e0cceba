package defendersim

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// naive keeps every call and counts anew each time.
type naive struct {
	limits   []Limit
	accepted []time.Duration
}

func (n *naive) inWindow(now, per time.Duration) (count int) {
	for _, at := range n.accepted {
		if at > now-per && at <= now {
			count++
		}
	}
	return count
}

func (n *naive) take(now time.Duration) bool {
	for _, l := range n.limits {
		if n.inWindow(now, l.Per) >= l.Calls {
			return false
		}
	}
	n.accepted = append(n.accepted, now)
	return true
}

func TestWindowAgainstNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Limit {
			return Limit{rapid.IntRange(1, 6).Draw(t, "calls"), time.Duration(rapid.IntRange(1, 40).Draw(t, "per"))}
		}), 0, 3).Draw(t, "limits")
		model, w := naive{limits: limits}, window{limits: limits}
		now := time.Duration(0)
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 9), 1, 80).Draw(t, "steps") {
			now += time.Duration(step)
			_, wait := w.full(now)
			if want := model.take(now); want != (wait == 0) {
				t.Fatalf("at %d: let in %v, want %v", now, wait == 0, want)
			}
			if wait > 0 { // exactly after the wait there is room, not before
				if _, early := w.full(now + wait - 1); early == 0 {
					t.Fatalf("at %d: room before the wait of %d is over", now, wait)
				}
				if _, left := w.full(now + wait); left != 0 {
					t.Fatalf("at %d: no room after the wait of %d", now, wait)
				}
				continue
			}
			w.accept(now)
		}
		per := time.Duration(rapid.IntRange(1, 60).Draw(t, "oracle"))
		most := 0
		for _, at := range model.accepted {
			most = max(most, model.inWindow(at, per))
		}
		if got := w.most(per); got != most {
			t.Fatalf("most in %d: %d, want %d", per, got, most)
		}
	})
}

func TestDefaultLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, Config{AllowUnknownMachines: true, TenantID: "tenant-1"})
		for n := range 100 {
			time.Sleep(100 * time.Millisecond)
			u.unrestrict(n).want(t, 201, "")
		}
		time.Sleep(50 * time.Millisecond) // 9.95 s after the first
		a := u.get("/api/machineactions")
		message := a.want(t, 429, "429")
		want := "API calls quota exceeded! Maximum allowed 100 per 00:01:00 for the key Destination+TenantID+AppID. You can send requests again in 51 seconds."
		if message != want {
			t.Errorf("message %q, want %q", message, want)
		}
		if got := a.header.Get("Retry-After"); got != "51" {
			t.Errorf("Retry-After %q", got)
		}
		if !strings.Contains(a.body, `"target":"tenant-1"`) {
			t.Errorf("target is not the tenant: %s", a.body)
		}
		for range 20 { // refused calls do not count
			u.unrestrict(200).want(t, 429, "")
		}
		time.Sleep(51 * time.Second)
		u.unrestrict(201).want(t, 201, "")
		if most, refused := u.s.MaxInWindow(time.Minute), u.s.Throttled(); most != 100 || refused != 21 {
			t.Errorf("most in a minute %d, refused %d", most, refused)
		}
		for i := range 1399 { // 15 minutes at most
			if i%100 == 0 {
				time.Sleep(time.Minute)
			}
			u.get("/api/machineactions").want(t, 200, "")
		}
		time.Sleep(time.Minute)
		message = u.unrestrict(300).want(t, 429, "429")
		if !strings.Contains(message, "Maximum allowed 1500 per 01:00:00") {
			t.Errorf("message %q", message)
		}
		if most := u.s.MaxInWindow(time.Hour); most != 1500 {
			t.Errorf("most in an hour %d", most)
		}
	})
}

func TestWhatCounts(t *testing.T) {
	u := newUser(t, Config{AllowUnknownMachines: true, Limits: []Limit{{5, time.Hour}}})
	ask(u.s, "nobody", "GET", "/api/machineactions", "").want(t, 401, "Unauthorized")
	for _, f := range []Fault{{Status: 401}, {Status: 429}} {
		f.Times = 1
		u.s.Inject(f)
		u.unrestrict(1).want(t, f.Status, "")
	}
	ask(u.s, "", "POST", "/tenant/oauth2/v2.0/token", "").want(t, 400, "")
	ask(u.s, "", "GET", "/sim/calls", "").want(t, 200, "")
	if n := u.s.MaxInWindow(time.Hour); n != 0 {
		t.Fatalf("%d calls counted, want none", n)
	}
	u.s.Inject(Fault{Status: 503, Times: 1})
	u.unrestrict(1).want(t, 503, "")
	u.get("/api/software").want(t, 404, "")
	u.unrestrict(1).want(t, 201, "")
	u.unrestrict(1).want(t, 400, "")
	u.get("/api/machineactions?$stop=1").want(t, 400, "")
	u.s.Inject(Fault{Status: 503})
	u.unrestrict(1).want(t, 429, "") // the windows come before the faults
	if n, refused := u.s.MaxInWindow(time.Hour), u.s.Throttled(); n != 5 || refused != 1 {
		t.Errorf("counted %d, refused %d", n, refused)
	}
	counted := 0
	for _, c := range u.s.Calls() {
		if c.Counted {
			counted++
		}
	}
	if all := len(u.s.Calls()); counted != 5 || all != 9 {
		t.Errorf("log: %d counted of %d", counted, all)
	}
}

func TestWindowsHoldUnderConcurrency(t *testing.T) {
	u := newUser(t, Config{AllowUnknownMachines: true, Limits: []Limit{{50, time.Hour}}, Lifecycle: Lifecycle{time.Hour, 1}})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 20 {
				u.unrestrict(worker*100 + i)
				u.s.Calls()
				u.s.Actions()
			}
		})
	}
	wg.Wait()
	if n, actions, refused := u.s.MaxInWindow(time.Hour), len(u.s.Actions()), u.s.Throttled(); n != 50 || actions != 50 || refused != 110 {
		t.Errorf("counted %d, actions %d, refused %d", n, actions, refused)
	}
	ids := map[string]bool{}
	for _, a := range u.s.Actions() {
		ids[a.ID] = true
	}
	if len(ids) != 50 {
		t.Errorf("%s ids of 50 actions", strconv.Itoa(len(ids)))
	}
}
