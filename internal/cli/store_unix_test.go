//go:build unix

package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker/storetest"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/service"
)

// TestEmbeddedStoreFailsAndHeals: a store that can't be written stops a worker, which says so and stays alive, and goes on by
// itself once it can. Nothing is lost, and nothing is called twice.
func TestEmbeddedStoreFailsAndHeals(t *testing.T) {
	if storetest.Alone(t) {
		return
	}
	s := runSystem(t, map[string]string{"WORKER_CONCURRENCY": "2", "WORKER_RECONCILE_DELAY": "100ms", "DEFENDER_TIMEOUT": "2s"})
	s.sim.Inject(defendersim.Fault{Op: "unrestrict", Latency: 100 * time.Millisecond}) // so that the disk is full amid the rows
	env := map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}
	const rows = 40
	var file strings.Builder
	file.WriteString("id,machineId,comment\n")
	for i := range rows {
		fmt.Fprintf(&file, "row-%d,%s,c\n", i, MachineOf(i+1))
	}
	submit := []string{"submit", "--file", WriteTestFile(t, "machines.csv", file.String())}
	if status, out, stderr := command(t, env, submit...); status != 0 {
		t.Fatalf("submit: %s%s", out, stderr)
	}
	lift := storetest.Bound(t, 16<<10) // below what the ledger has by the last of them
	until := func(ok func(all []health.Condition) bool) {
		for !ok(s.work.Conditions()) {
			service.Pause(t.Context(), 10*time.Millisecond)
		}
	}
	until(func(all []health.Condition) bool { _, failed := health.Has(all, health.Store); return failed })
	for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/livez": http.StatusOK} {
		resp, err := http.Get("http://" + s.work.AdminAddr.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	lift()
	if status, out, stderr := command(t, env, append(submit, "--wait")...); status != 0 { // the same rows
		t.Errorf("submit --wait: exit status %d: %s%s", status, out, stderr)
	}
	until(func(all []health.Condition) bool { stop, _ := health.Stopping(all); return len(stop) == 0 })
	calls := map[string]int{}
	for _, c := range s.sim.Calls() {
		if c.Op == "unrestrict" && c.Status == http.StatusCreated {
			calls[c.Machine]++
		}
	}
	for i := range rows {
		if n := calls[MachineOf(i+1)]; n != 1 {
			t.Errorf("%s was called for %d times", MachineOf(i+1), n)
		}
	}
	_, out, _ := command(t, env, "results", "--follow=false")
	if n := strings.Count(out, "succeeded"); n != rows {
		t.Errorf("%d final results of %d requests:\n%s", n, rows, out)
	}
}
