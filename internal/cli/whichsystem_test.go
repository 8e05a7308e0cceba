package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/service"
)

// TestWhichSystem: log, /status and `worker status` say what the worker calls, whose tenant and account that is, and who else
// is there; of a replica of an older version what it says. A lab and a dry run are said first.
func TestWhichSystem(t *testing.T) {
	t.Parallel()
	s, err := newSystem(t.TempDir())
	t.Cleanup(s.close)
	log := &watched{}
	s.log = log
	if err == nil {
		err = s.start(context.WithoutCancel(t.Context()), map[string]string{"WORKER_DRY_RUN": "true"})
	}
	if err != nil {
		t.Fatal(err)
	}
	tenant := saysItInStatus(t, s)
	version, host := service.ThisBuild().Version, hostName(t)
	_, out, _ := command(t, map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}, "status")
	words := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"LAB calls go to " + s.api.URL, "api " + s.api.URL + ", tenant " + tenant + ", account $G", "REMEDIATION_CONTROL at nats://",
		"replicas older, v0.9.0, calls the API, ready", host + ", " + version + ", dry run, ready",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if !strings.HasPrefix(out, "DRY RUN ") || strings.Index(out, "LAB ") > strings.Index(out, "state ") {
		t.Errorf("what is no production is not said first: %s", out)
	}
	for _, want := range []string{`"account":"$G"`, `"mode":"dryRun"`, `"api":"` + s.api.URL, `"host":"` + host, `"streams":["REMEDIATION",`, `"DRY RUN (WORKER_DRY_RUN)`, `"LAB: calls go to ` + s.api.URL} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log: %s", want, log.String())
		}
	}
}

// hostName is this machine's name.
func hostName(t *testing.T) string {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// saysItInStatus holds /status against what is known of the system, and returns the tenant.
func saysItInStatus(t *testing.T, s *system) (tenant string) {
	t.Helper()
	key := "replica." + ledger.DeploymentDigest("REMEDIATION") + ".older"
	if err := s.work.Broker.State().Put(t.Context(), key, []byte(`{"ready":true,"inFlight":0,"followed":0,"version":"v0.9.0"}`), time.Minute); err != nil {
		t.Fatal(err)
	}
	tenant = s.work.Parts.Tenant()
	if tenant == "" {
		t.Fatal("the token names no tenant")
	}
	var status admin.Status
	if err := json.Unmarshal([]byte(fetchText(t, s, "/status")), &status); err != nil {
		t.Fatal(err)
	}
	want := admin.System{
		API: s.api.URL, Lab: true, Tenant: tenant, Account: "$G", Broker: s.work.Broker.URL(), Mode: admin.ModeMixed,
		Streams: admin.Streams{Requests: "REMEDIATION", Results: "REMEDIATION_RESULTS", DeadLetters: "REMEDIATION_DEADLETTER", Orders: "REMEDIATION_CONTROL"},
	}
	if diff := cmp.Diff(want, status.System); diff != "" {
		t.Error(diff)
	}
	replicas := []admin.Replica{
		{ID: "older", Version: "v0.9.0", Mode: admin.ModeLive, Ready: true, Conditions: []string{}},
		{ID: s.work.Owner, Host: hostName(t), Version: service.ThisBuild().Version, Mode: admin.ModeDryRun, API: s.api.URL, Ready: true, Conditions: []string{}},
	}
	for i := range status.Replicas {
		status.Replicas[i].Conditions = []string{} // whether it has heard of the other yet
	}
	if diff := cmp.Diff(replicas, status.Replicas); diff != "" {
		t.Error(diff)
	}
	return tenant
}

// TestPageReadsNothingAnew: however many results there are, a page reads those that have come since the page before.
func TestPageReadsNothingAnew(t *testing.T) {
	t.Parallel()
	const before = 3000
	s := runSystem(t, nil)
	publish := func(n int) {
		t.Helper()
		text := fmt.Sprintf(`{"requestId":"done-%d","run":1,"machineId":%q,"outcome":"succeeded","final":true}`, n, MachineOf(n))
		if _, err := s.work.Broker.JS().Publish(t.Context(), "remediation.results", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(n int) {
		t.Helper()
		for !strings.Contains(fetchText(t, s, "/fragment"), fmt.Sprintf(">done-%d<", n)) {
			if !service.Pause(t.Context(), 50*time.Millisecond) {
				t.Fatal("never shown")
			}
		}
	}
	for n := range before {
		publish(n)
	}
	shows(before - 1)
	heard := s.work.Broker.Conn().Stats().InMsgs
	for n := before; n < before+3; n++ {
		publish(n)
		shows(n)
	}
	if more := s.work.Broker.Conn().Stats().InMsgs - heard; more > before {
		t.Errorf("three pages read %d messages", more)
	}
}

var (
	whyText = regexp.MustCompile(`(?m)^(?:[a-z][a-z ]{0,12}[a-z] {2,}|\d{4}-\d\d-\d\d \S+  )(.+(?:\n {14,}.+)*)`)
	tags    = regexp.MustCompile(`<[^>]*>`)
)

// TestRequestPageSaysWhatWhyDoes: word for word, and links lead there.
func TestRequestPageSaysWhatWhyDoes(t *testing.T) {
	t.Parallel()
	s := runSystem(t, nil)
	s.refuse(MachineOf(1))
	everyOutcome(t, s, map[string]string{
		"rejected":  fmt.Sprintf(`{"id":"a&b","machineId":%q,"comment":"c","ticket":"INC-1","requestedBy":"ann"}`, MachineOf(1)),
		"succeeded": fmt.Sprintf(`{"id":"good","machineId":%q,"comment":"c"}`, MachineOf(2)),
	})
	for !strings.Contains(fetchText(t, s, "/"), `href="request?id=a%26b"`) {
		if !service.Pause(t.Context(), 50*time.Millisecond) {
			t.Fatal("there is no link")
		}
	}
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	for id, path := range map[string]string{"a&b": "a%26b", "good": "good"} {
		_, out, _ := command(t, map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}, "why", id)
		page := words(html.UnescapeString(tags.ReplaceAllString(fetchText(t, s, "/request?id="+path), " ")))
		said := whyText.FindAllStringSubmatch(out, -1)
		if len(said) < 8 {
			t.Errorf("worker why %s says %q", id, out)
		}
		for _, m := range said {
			if !strings.Contains(page, words(m[1])) {
				t.Errorf("%s: no %q on the page: %s", id, words(m[1]), page)
			}
		}
	}
}
