package intake_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMetrics: what was not stored is counted, certain or not; conditions are there with their weight; each has the tenant.
func TestMetrics(t *testing.T) {
	w := newWorld(t)
	file := w.file("clients.yaml", twoClients())
	d := w.open(map[string]string{"WORKER_TENANT": "contoso", "WORKER_INTAKE_CLIENTS_FILE": file})
	have := func(series string) {
		t.Helper()
		d.eventually(series, func() bool { return strings.Contains(d.ask("GET", "/metrics", "").body, series+"\n") })
	}
	have(`unrestrict_intake_not_stored_total{code="unknown",tenant="contoso"} 0`)
	have(`unrestrict_intake_condition{code="broker",tenant="contoso"} 0`)
	d.wire.set(true, false) // mute
	if a := d.post(request("a", 1)); a.Code != "unknown" {
		t.Errorf("the answer lost: %d %s", a.status, a.body)
	}
	d.wire.set(false, true)
	have(`unrestrict_intake_condition{code="broker",tenant="contoso"} 2`)
	if a := d.post(request("b", 1)); a.Code != "notQueued" {
		t.Errorf("no connection: %d %s", a.status, a.body)
	}
	if a := d.ask("GET", "/v1/requests/b", ""); a.Code != "unavailable" { // which is nothing that was not stored
		t.Errorf("no connection: %d %s", a.status, a.body)
	}
	have(`unrestrict_intake_not_stored_total{code="unknown",tenant="contoso"} 1`)
	have(`unrestrict_intake_not_stored_total{code="notQueued",tenant="contoso"} 1`)
	if err := os.WriteFile(file, []byte("clients: none"), 0o600); err != nil {
		t.Fatal(err)
	}
	have(`unrestrict_intake_condition{code="clients",tenant="contoso"} 1`)
	without := ""
	for line := range strings.Lines(d.ask("GET", "/metrics", "").body) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, `tenant="contoso"`) {
			without += line
		}
	}
	if diff := cmp.Diff("", without); diff != "" {
		t.Errorf("without the tenant: %s", diff)
	}
}
