package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// tenant is a worker with an account and an API of its own.
type tenant struct {
	*system
	t    *testing.T
	g    *guarded
	name string
	asks jetstream.JetStream // whoever publishes requests
	sent int
}

// withTenants is a broker of deploy/nats/tenants.conf.
func withTenants(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{signIn: map[string][]string{}, option: map[string]nats.Option{}}
	for _, name := range []string{"contoso", "fabrikam"} {
		t.Setenv(envName(name)+"_STORE", "8MB")
		for _, role := range []string{"-worker", "-publisher"} {
			user, password := name+role, "of-"+name+role
			t.Setenv(envName(user)+"_PASSWORD", password)
			g.signIn[user] = []string{"NATS_USER=" + user, "NATS_PASSWORD=" + password}
			g.option[user] = nats.UserInfo(user, password)
		}
	}
	opts := readConfig(t, filepath.Join(natsFiles, "tenants.conf"))
	opts.JetStream, opts.StoreDir = true, t.TempDir()
	g.start(t, opts)
	return g
}

func (g *guarded) tenant(t *testing.T, name string) *tenant {
	t.Helper()
	s := runSystem(t, map[string]string{
		"NATS_URL": g.url, "NATS_USER": name + "-worker", "NATS_PASSWORD": "of-" + name + "-worker", "WORKER_TENANT": name,
		"WORKER_RATE_PER_HOUR": "1000",
	})
	return &tenant{system: s, t: t, g: g, name: name, asks: g.jetStream(t, name+"-publisher")}
}

func (x *tenant) publish(payload string) error {
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	_, err := x.asks.Publish(ctx, "remediation.unrestrict", []byte(payload))
	return err
}

// releases has a request carried out.
func (x *tenant) releases() {
	x.t.Helper()
	x.sent++
	id := fmt.Sprintf("%s-%d", x.name, x.sent)
	if err := x.publish(fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"c"}`, id, MachineOf(x.sent))); err != nil {
		x.t.Fatal(err)
	}
	if r := finalResult(x.t, x.g.jetStream(x.t, x.name+"-worker"), id, 1); r.Outcome != message.Succeeded {
		x.t.Errorf("%s ended %s: %+v", id, r.Outcome, r.Error)
	}
}

// holds reports whether a condition of the tenant's worker says this.
func (x *tenant) holds(code string) bool {
	_, is := health.Has(x.work.Conditions(), code)
	return is
}

func (x *tenant) until(what string, is func() bool) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	for !is() {
		if !service.Pause(ctx, 20*time.Millisecond) {
			x.t.Fatalf("%s: %s has not come: %v", x.name, what, x.work.Conditions())
		}
	}
}

// TestTenants: what befalls one tenant changes nothing for another on the same broker: not a fault, a pause, a flood that fills
// its store, nor a closure by 429.
func TestTenants(t *testing.T) {
	g := withTenants(t)
	contoso, fabrikam := g.tenant(t, "contoso"), g.tenant(t, "fabrikam")
	contoso.releases()
	fabrikam.releases()
	env := terminal(t.TempDir(), append([]string{"NATS_URL=" + g.url}, g.signIn["contoso-worker"]...)...)
	ask := func(n int, comment string) error {
		return contoso.publish(fmt.Sprintf(`{"id":"held-%d","machineId":%q,"comment":%q}`, n, MachineOf(n), comment))
	}
	for _, c := range []struct {
		name, code string
		befalls    func()
	}{
		{"a pause", health.Paused, func() { succeeds(t, env, "worker", "pause", "--reason", "change") }},
		{"a fault", "Forbidden", func() {
			contoso.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: http.StatusForbidden, Code: "Forbidden", Message: "Missing application roles", Times: 1_000_000})
			succeeds(t, env, "worker", "resume", "--reason", "done")
			if err := ask(1000, "c"); err != nil {
				t.Fatal(err)
			}
		}},
		{"a 429", health.Throttled, func() {
			contoso.sim.ClearFaults()
			contoso.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: http.StatusTooManyRequests, RetryAfter: time.Hour, Times: 1})
		}},
		{"a flood", health.Throttled, func() {
			for n := 2000; ask(n, strings.Repeat("flood ", 600)) == nil; n++ {
			}
		}},
	} {
		c.befalls()
		contoso.until(c.name, func() bool { return contoso.holds(c.code) })
		fabrikam.releases()
		if list := fabrikam.work.Conditions(); len(list) > 0 {
			t.Errorf("%s of the other: %v", c.name, list)
		}
		if !contoso.holds(c.code) {
			t.Errorf("%s is over: %v", c.name, contoso.work.Conditions())
		}
	}
	// Nothing of the one has reached the other: requests, results and calls are as many as it asked for.
	js := g.jetStream(t, "fabrikam-worker")
	for stream, want := range map[string]uint64{"REMEDIATION": uint64(fabrikam.sent), "REMEDIATION_RESULTS": 2 * uint64(fabrikam.sent)} {
		if got := stateOf(t, js, stream).LastSeq; got != want {
			t.Errorf("%s of fabrikam has %d messages, not %d", stream, got, want)
		}
	}
	if n := len(fabrikam.sim.Actions()); n != fabrikam.sent {
		t.Errorf("%d actions, not %d", n, fabrikam.sent)
	}
	fabrikam.isNamed(js)
}

// isNamed: the tenant's name stands in each metric and in each result.
func (x *tenant) isNamed(js jetstream.JetStream) {
	x.t.Helper()
	for line := range strings.Lines(scrape(x.t, x.work.AdminAddr.String())) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, fmt.Sprintf("tenant=%q", x.name)) {
			x.t.Errorf("no tenant: %s", line)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	results, err := js.Stream(x.t.Context(), "REMEDIATION_RESULTS")
	if err != nil {
		x.t.Fatal(err)
	}
	last, err := results.GetLastMsgForSubject(x.t.Context(), "remediation.results")
	if err != nil {
		x.t.Fatal(err)
	}
	if got, want := last.Header.Get("ce-source"), "urn:unrestrict-worker:"+x.name+":REMEDIATION"; got != want {
		x.t.Errorf("ce-source %s, not %s", got, want)
	}
}

// TestTenantInLog: each line of the log bears the tenant.
func TestTenantInLog(t *testing.T) {
	var out bytes.Buffer
	env := &session.Env{Settings: config.Settings{Tenant: "contoso", Log: config.Log{Level: "info", Format: "json"}}, Stderr: &out}
	log, _ := env.Logger()
	log.Named("intake").Info("said")
	log.Warn("said too")
	for line := range strings.Lines(out.String()) {
		var entry struct{ Tenant string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Tenant != "contoso" {
			t.Errorf("no tenant: %s", line)
		}
	}
	if strings.Count(out.String(), "\n") != 2 {
		t.Errorf("logged %q", out.String())
	}
}
