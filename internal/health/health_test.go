package health

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	noon  = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	later = noon.Add(time.Hour)
)

func TestTable(t *testing.T) {
	seen, impairs := map[string]bool{}, false
	for _, r := range Table() {
		switch {
		case r.Code == "" || r.Means == "" || r.Remedy == "" || r.Ends == "":
			t.Errorf("%s: not all is said", r.Code)
		case seen[r.Code]:
			t.Errorf("%s stands twice", r.Code)
		case r.Stops && impairs:
			t.Errorf("%s stops, and stands behind one that does not", r.Code)
		}
		seen[r.Code], impairs = true, !r.Stops
	}
}

// TestFaultOfTheAPI: a code that only the API knows keeps its name, and is a fault.
func TestFaultOfTheAPI(t *testing.T) {
	c := New("http418", "I'm a teapot")
	if c.Code != "http418" || !c.Stops || c.Remedy != Lookup(Other).Remedy || c.Message != "I'm a teapot" {
		t.Errorf("got %+v", c)
	}
	if c := New(Policy, ""); c.Stops || c.Message != Lookup(Policy).Means {
		t.Errorf("got %+v", c)
	}
}

func TestDate(t *testing.T) {
	before := []Condition{{Code: "a", Since: noon}, {Code: "gone", Since: noon}}
	got := Date(before, []Condition{{Code: "b"}, {Code: "a"}, {Code: "c", Since: noon.Add(time.Minute), Stops: true}}, later)
	want := []Condition{{Code: "c", Since: noon.Add(time.Minute), Stops: true}, {Code: "b", Since: later}, {Code: "a", Since: noon}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMerge(t *testing.T) {
	got := Merge(
		[]Condition{{Code: "settings", Message: "one", Since: later, Until: noon}, {Code: "settings", Message: "two", Since: later}, {Code: "throttled", Since: noon, Until: noon}},
		nil,
		[]Condition{{Code: "settings", Message: "three", Since: noon}, {Code: "throttled", Since: noon, Until: later, Stops: true}},
	)
	want := []Condition{
		{Code: "throttled", Since: noon, Until: later, Stops: true, Replicas: 2},
		{Code: "settings", Message: "three", Since: noon, Replicas: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHealthy(t *testing.T) {
	short := New(Throttled, "")
	short.Stops = false
	for _, c := range []struct {
		all  []Condition
		want bool
	}{
		{nil, true},
		{[]Condition{New(WaitingForQuota, ""), short, New(Settings, ""), New(Unpublishable, "")}, true},
		{[]Condition{New(Settings, ""), New(AckPending, "")}, false},
		{[]Condition{New(MayNotList, "")}, false},
		{[]Condition{New(NotFollowing, "")}, false},
		{[]Condition{New(Throttled, "")}, false},
		{[]Condition{New(Paused, "")}, false},
		{[]Condition{New("http418", "")}, false},
	} {
		if got := Healthy(c.all); got != c.want {
			t.Errorf("%v: %t", c.all, got)
		}
	}
}
