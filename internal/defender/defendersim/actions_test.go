package defendersim

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLifecycle(t *testing.T) {
	for name, c := range map[string]struct {
		machine  Machine
		at       []time.Duration // when to look
		statuses []string
	}{
		"default":   {Machine{}, []time.Duration{0, 4999 * time.Millisecond, 5 * time.Second, 11999 * time.Millisecond, 12 * time.Second}, []string{"Pending", "Pending", "InProgress", "InProgress", "Succeeded"}},
		"failed":    {Machine{Outcome: "Failed"}, []time.Duration{12 * time.Second}, []string{"Failed"}},
		"timed out": {Machine{Outcome: "TimeOut"}, []time.Duration{12 * time.Second}, []string{"TimeOut"}},
		"own times": {Machine{Pending: time.Minute, InProgress: -1}, []time.Duration{59 * time.Second, time.Minute}, []string{"Pending", "Succeeded"}},
		"offline":   {Machine{Offline: true}, []time.Duration{90 * 24 * time.Hour}, []string{"Pending"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUser(t, Config{Limits: []Limit{}, Lifecycle: Lifecycle{5 * time.Second, 7 * time.Second}})
				u.s.AddMachine(machineID(1), c.machine)
				start := time.Now()
				id := u.unrestrict(1).json(t)["id"].(string)
				var got []string
				for _, at := range c.at {
					time.Sleep(time.Until(start.Add(at)))
					got = append(got, u.get("/api/machineactions/" + id).json(t)["status"].(string))
				}
				if d := cmp.Diff(c.statuses, got); d != "" {
					t.Error(d)
				}
				if got := u.s.Actions()[0].Status; got != c.statuses[len(c.statuses)-1] {
					t.Errorf("Actions: %s", got)
				}
			})
		})
	}
}

func TestOfflineMachineConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, anyMachine())
		u.s.AddMachine(machineID(1), Machine{Offline: true, Outcome: "Failed"})
		created := u.unrestrict(1).json(t)
		time.Sleep(24 * time.Hour)
		u.s.AddMachine(machineID(1), Machine{Outcome: "Failed"})
		time.Sleep(time.Second)
		if got := u.s.Actions()[0].Status; got != "InProgress" {
			t.Errorf("a second after it connected: %s", got)
		}
		time.Sleep(time.Second)
		got := u.get("/api/machineactions/" + strings.ToUpper(created["id"].(string))).json(t)
		if got["status"] != "Failed" || got["errorHResult"] == 0.0 || got["lastUpdateDateTimeUtc"] != "2000-01-02T00:00:02Z" {
			t.Errorf("at the end: %v", got)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, anyMachine())
		id := u.unrestrict(1).json(t)["id"].(string)
		time.Sleep(1500 * time.Millisecond) // InProgress
		target := "/api/machineactions/" + id + "/cancel"
		u.post(target, `{}`).want(t, 400, "MissingRequiredParameter")
		a := u.post(target, `{"Comment":"stop"}`)
		a.want(t, 200, "")
		got := a.json(t)
		if got["id"] != id || got["status"] != "Cancelled" || got["cancellationComment"] != "stop" ||
			got["cancellationDateTimeUtc"] != "2000-01-01T00:00:01.5Z" || got["cancellationRequestor"] == nil {
			t.Errorf("cancelled: %v", got)
		}
		u.post(target, `{"Comment":"stop"}`).want(t, 400, "BadRequest")
		time.Sleep(time.Hour)
		if got := u.s.Actions()[0].Status; got != "Cancelled" {
			t.Errorf("later: %s", got)
		}
		id = u.unrestrict(2).json(t)["id"].(string)
		u.post("/api/machineactions/"+id+"/cancel", `{"Comment":"at once"}`).want(t, 200, "") // Pending
		time.Sleep(time.Hour)
		if got := u.s.Actions()[1]; got.Status != "Cancelled" || got.LastUpdate != got.Created {
			t.Errorf("cancelled while Pending: %+v", got)
		}
		u.unrestrict(1).want(t, 201, "")
	})
}

func TestClockOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, Config{AllowUnknownMachines: true, ClockOffset: -90 * time.Second})
		time.Sleep(time.Hour)
		a := u.unrestrict(1)
		if got := a.json(t)["creationDateTimeUtc"]; got != "2000-01-01T00:58:30Z" {
			t.Errorf("created %v", got)
		}
		if got := a.header.Get("Date"); got != "Sat, 01 Jan 2000 00:58:30 GMT" {
			t.Errorf("Date %q", got)
		}
		if got := u.s.Calls()[0].At; !got.Equal(time.Now()) {
			t.Errorf("the call's time is our clock's: %v", got)
		}
		time.Sleep(2 * time.Second)
		if got := u.s.Actions()[0].Status; got != "Succeeded" {
			t.Errorf("two seconds later: %s", got)
		}
		if ask(u.s, u.token, "GET", "/api/alerts", "").header.Get("Date") != "Sat, 01 Jan 2000 00:58:32 GMT" {
			t.Error("an error has another Date")
		}
	})
}

func TestPutAndOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, Config{Limits: []Limit{}})
		now := time.Now()
		time.Sleep(time.Minute)
		late := u.s.Restrict(strings.ToUpper(machineID(0xa)), "again")
		for _, c := range []struct{ status, later string }{{"Pending", "Pending"}, {"InProgress", "InProgress"}, {"TimeOut", "TimeOut"}, {"", "Succeeded"}} {
			u.s.Put(Action{ID: "ID-" + c.status, MachineID: machineID(2), Comment: c.later, Created: now.Add(time.Second), Status: c.status, Requestor: "r"})
		}
		if late.Status != "Pending" || late.Type != "RestrictCodeExecution" || late.MachineID != machineID(0xa) || late.Requestor != "analyst@contoso.com" {
			t.Errorf("restricted: %+v", late)
		}
		time.Sleep(time.Hour)
		all := u.s.Actions()
		if got := all[len(all)-1]; got.ID != late.ID || got.Comment != "again" {
			t.Errorf("the newest is %+v", got)
		}
		for _, a := range all[:4] {
			if a.Status != a.Comment || a.Type != "UnrestrictCodeExecution" {
				t.Errorf("%+v, want status %s", a, a.Comment)
			}
		}
		if !slices.IsSortedFunc(all, func(a, b Action) int { return a.Created.Compare(b.Created) }) {
			t.Error("not in order of creation")
		}
		u.unrestrict(0xa).want(t, 201, "") // who is acted on exists
	})
}

func TestSeedRepeatsIDs(t *testing.T) {
	ids := func(seed uint64) (out []string) {
		s := New(Config{Seed: seed})
		for range 3 {
			out = append(out, s.Restrict(machineID(1), "").ID)
		}
		return out
	}
	if d := cmp.Diff(ids(7), ids(7)); d != "" {
		t.Error(d)
	}
	if slices.Equal(ids(7), ids(8)) || slices.Equal(ids(0), ids(0)) {
		t.Error("other seeds, same ids")
	}
}

func TestCallLog(t *testing.T) {
	for keep, want := range map[int][]int{0: {1, 2, 3, 4, 5, 6, 7}, 4: {4, 5, 6, 7}, 3: {5, 6, 7}, 1: {7}, -1: {}} {
		u := newUser(t, Config{AllowUnknownMachines: true, CallLog: keep, Limits: []Limit{}})
		for n := range 7 {
			u.unrestrict(n + 1)
		}
		got := []int{}
		for _, c := range u.s.Calls() {
			if c.Op != "unrestrict" || c.Method != http.MethodPost || c.Status != 201 || !c.Counted || !strings.Contains(c.Path, c.Machine) {
				t.Errorf("%+v", c)
			}
			got = append(got, int(c.Machine[39]-'0'))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("keep %d: %s", keep, d)
		}
	}
}
