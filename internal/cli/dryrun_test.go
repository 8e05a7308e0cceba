package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/service"
)

// A replica in dry run takes nothing while there is a live one: what it took would end without its call. Alone it goes on,
// and what ended in its dry run is carried out by a live one when it comes again.
func TestDryRunBesideLiveReplicas(t *testing.T) {
	nats := &guarded{}
	nats.start(t, &server.Options{JetStream: true, StoreDir: t.TempDir()})
	env := map[string]string{"NATS_URL": nats.url}
	live := runSystem(t, env)
	dry := runSystem(t, map[string]string{
		"NATS_URL": nats.url, "WORKER_DRY_RUN": "true",
		"DEFENDER_API_URL": live.api.URL, "DEFENDER_TOKEN_FILE": filepath.Join(live.dir, "token"),
	})
	request := func(n int) string { return fmt.Sprintf(`{"id":"r%d","machineId":%q,"comment":"c"}`, n, MachineOf(n)) }
	for n := range 20 {
		everyOutcome(t, live, map[string]string{"succeeded": request(n)})
	}
	reasons, details := health.Stopping(dry.work.Conditions())
	if len(reasons) != 0 || len(details) != 1 || details[0].Code != "liveReplicas" {
		t.Errorf("/readyz: %v, %v", reasons, details)
	}
	for _, s := range []*system{live, dry} {
		if page := fetchText(t, s, "/"); !strings.Contains(page, "1 of 2 replicas call the API") {
			t.Error("the page does not name the mode")
		}
		if status := fetchText(t, s, "/status"); !strings.Contains(strings.Join(strings.Fields(status), ""), `"dryRun":{"replicas":1,"live":1}`) {
			t.Errorf("the status does not name the mode: %s", status)
		}
	}
	live.stop()
	everyOutcome(t, dry, map[string]string{"dryRun": request(20)})
	if calls := len(live.sim.Calls()); calls == 0 {
		t.Error("nothing was called")
	}
	if err := live.start(context.WithoutCancel(t.Context()), env); err != nil {
		t.Fatal(err)
	}
	for !dry.work.Parts.BesideLive() && service.Pause(t.Context(), 10*time.Millisecond) {
	}
	everyOutcome(t, live, map[string]string{"succeeded": request(20)})
}

func fetchText(t *testing.T, s *system, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + s.work.AdminAddr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
