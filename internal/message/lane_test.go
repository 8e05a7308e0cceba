package message

import (
	"strings"
	"testing"
)

func TestLanes(t *testing.T) {
	for lane, subject := range map[Lane]string{LaneUrgent: "soc.v1.urgent", LaneNormal: "soc.v1", LaneBulk: "soc.v1.bulk"} {
		if got := lane.Subject("soc.v1"); got != subject {
			t.Errorf("the subject of %s is %s, want %s", lane, got, subject)
		}
		if got := LaneOf("soc.v1", subject); got != lane {
			t.Errorf("the lane of %s is %s, want %s", subject, got, lane)
		}
		if got, err := ParseLane(string(lane)); got != lane || err != nil {
			t.Errorf("ParseLane(%q) = %q, %v", lane, got, err)
		}
	}
	if got := LaneOf("soc.v1", "elsewhere"); got != LaneNormal {
		t.Errorf("the lane of another subject is %s, want normal", got)
	}
	for _, name := range []string{"", "fast", "Urgent"} {
		if _, err := ParseLane(name); err == nil || !strings.Contains(err.Error(), "urgent, normal, bulk") {
			t.Errorf("ParseLane(%q): %v, want an error that names the three", name, err)
		}
	}
}
