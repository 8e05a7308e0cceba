package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// TestWhenIsSaidEverywhere: why, status, the page and the metric say the same of a request that waits for its call.
func TestWhenIsSaidEverywhere(t *testing.T) {
	s := runSystem(t, map[string]string{"WORKER_RATE_PER_MINUTE": "3", "WORKER_RATE_PER_HOUR": "0", "WORKER_TRACK": "false"})
	env := map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}
	for n := range 4 { // normal leaves one of three
		if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, fmt.Appendf(nil, `{"id":"row%d","machineId":"%s","comment":"c"}`, n, MachineOf(n))); err != nil {
			t.Fatal(err)
		}
		if n < 2 { // else the calls that are free at once may be those of the later rows
			s.until(t, "its call", func() bool { return len(s.sim.Actions()) == n+1 })
		}
	}
	var why struct{ Queue service.Place }
	for why.Queue.Ahead != 1 || why.Queue.Lane == "" { // the first two are not called yet
		if _, out, _ := command(t, env, "why", "row3", "--json"); json.Unmarshal([]byte(out), &why) != nil {
			t.Fatal(out)
		}
	}
	at := why.Queue.ExpectedAt
	if q := why.Queue; q.Lane != message.LaneNormal || q.Ahead != 1 || q.LatestAt.Before(at) || at.After(time.Now().Add(63*time.Second)) || q.Unavailable != "" {
		t.Errorf("why: %+v", q)
	}
	var status struct {
		Queue struct {
			Lanes map[string]struct{ ExpectedAt, LatestAt time.Time }
		}
	}
	_, out, _ := command(t, env, "status", "--json")
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Queue.Lanes["normal"].ExpectedAt.Sub(at).Abs() > time.Second || !status.Queue.Lanes["bulk"].ExpectedAt.IsZero() {
		t.Errorf("status: %v, %s", err, out)
	}
	if _, out, _ := command(t, env, "status"); !strings.Contains(out, "2 normal (the last at ") && time.Until(at) > time.Minute {
		t.Errorf("status: %s", out)
	}
	get := func(path string) string {
		resp, err := http.Get("http://" + s.work.AdminAddr.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if page := get("/?q=row3"); !strings.Contains(page, "it is expected to be called at "+admin.Clock(at)) {
		t.Errorf("the page does not say %s: %s", at, page)
	}
	metric := regexp.MustCompile(`unrestrict_queue_expected_wait_seconds\{lane="normal"\} (\S+)`).FindStringSubmatch(get("/metrics"))
	if len(metric) == 0 {
		t.Fatal("no metric")
	}
	if wait, _ := strconv.ParseFloat(metric[1], 64); time.Duration(wait*float64(time.Second)) < time.Until(at)-5*time.Second || wait > 130 { // behind the two
		t.Errorf("the metric says %s s, and the last one waits %s", metric[1], time.Until(at))
	}
}
