package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// TestPermissions runs a worker with the permissions that docs/operations.md lists: they are enough for a request that
// succeeds, one that is rejected and replayed, and a change of the limits.
func TestPermissions(t *testing.T) {
	list := blocks(pages(t)["docs/operations.md"], "conf")
	if len(list) != 1 {
		t.Fatalf("docs/operations.md has %d lists of permissions", len(list))
	}
	s, refused := startNATS(t, list[0])
	dir := t.TempDir()
	sim, pasted := startSimulator(t, terminal(dir), []string{"worker", "simulate"})
	as := func(user string, more ...string) []string {
		env := append(terminal(dir, "NATS_URL="+s.ClientURL(), "NATS_USER="+user, "NATS_PASSWORD=secret"), pasted...)
		return append(env, more...)
	}

	creator, _, _ := startRun(t, as("creator"), []string{"worker", "run"})
	creator.stop(t)
	run, _, admin := startRun(t, as("worker", "WORKER_PROVISION=false", "WORKER_RATE_PER_HOUR=1000", "WORKER_RATE_PER_MINUTE=50"), []string{"worker", "run"})

	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("creator", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(payload string, header nats.Header) {
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "remediation.unrestrict", Data: []byte(payload), Header: header}); err != nil {
			t.Fatal(err)
		}
	}
	publish(`{"id":"good","machineId":"1e5bc9d7e413ddd7902c2932e418702b84d0cc07","comment":"c"}`, nil)
	if r := finalResult(t, js, "good", 1); r.Outcome != remediation.Succeeded {
		t.Errorf("ended %s: %+v", r.Outcome, r.Error)
	}
	const late = `{"id":"late","machineId":"1e5bc9d7e413ddd7902c2932e418702b84d0cc07","comment":"c","expiresAt":"2020-01-01T00:00:00Z"}`
	publish(late, nil)
	finalResult(t, js, "late", 1)
	dead, err := js.Stream(t.Context(), "REMEDIATION_DEADLETTER")
	if err != nil {
		t.Fatal(err)
	}
	letter, err := dead.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	letter.Header.Set("Unrestrict-Replay", "1")
	letter.Header.Set("Nats-Msg-Id", "replay:1")
	publish(late, letter.Header)
	finalResult(t, js, "late", 2)
	if _, err := dead.GetMsg(t.Context(), 1); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("the replayed dead letter: %v", err)
	}
	nc.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/status", "/"} {
		answer, err := client.Get("http://" + admin + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	log := run.stop(t)
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("a worker with NATS_URL made a store of its own")
	}
	if all := refused(); len(all) > 0 {
		t.Errorf("the broker refused:\n%s\nthe worker's log:\n%s", strings.Join(all, "\n"), log)
	}
	// It tries more than a worker does, such as to publish requests.
	succeeds(t, as("worker", "WORKER_PROVISION=false"), "worker", "check")
	sim.stop(t)
}

// TestAuditPermissions verifies and exports the audit trail with no more than docs/operations.md names for it.
func TestAuditPermissions(t *testing.T) {
	_, named, _ := strings.Cut(pages(t)["docs/operations.md"], "verifies or exports the audit trail needs")
	named, _, _ = strings.Cut(named, "Who may publish")
	subjects := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(named, -1)
	if len(subjects) != 4 {
		t.Fatalf("docs/operations.md names %q", subjects)
	}
	var allow []string
	for _, s := range subjects {
		allow = append(allow, strconv.Quote(s[1]))
	}
	s, refused := startNATS(t, "publish: { allow: ["+strings.Join(allow, ", ")+"] }\nsubscribe: { allow: [\"_INBOX.>\"] }")
	dir := t.TempDir()
	sim, pasted := startSimulator(t, terminal(dir), []string{"worker", "simulate"})
	as := func(user string) []string {
		return append(terminal(dir, "NATS_URL="+s.ClientURL(), "NATS_USER="+user, "NATS_PASSWORD=secret"), pasted...)
	}
	run, _, _ := startRun(t, as("creator"), []string{"worker", "run"})
	succeeds(t, as("creator"), "worker", "submit", "--machine", "1e5bc9d7e413ddd7902c2932e418702b84d0cc07", "--comment", "c", "--wait")
	run.stop(t)
	sim.stop(t)
	succeeds(t, as("worker"), "worker", "audit", "verify")
	succeeds(t, as("worker"), "worker", "audit", "export")
	if all := refused(); len(all) > 0 {
		t.Errorf("the broker refused:\n%s", strings.Join(all, "\n"))
	}
}

// startNATS is a broker with a user that may do everything, and one with the given permissions. refused tells what it
// has refused to anybody.
func startNATS(t *testing.T, permissions string) (s *server.Server, refused func() []string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	conf := fmt.Sprintf("jetstream: { store_dir: %q }\nauthorization: { users: [\n{user: creator, password: secret}\n{user: worker, password: secret, permissions: {\n%s\n}}\n] }\n", dir, permissions)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, true
	if s, err = server.NewServer(opts); err != nil {
		t.Fatal(err)
	}
	log := &refusals{}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s, log.all
}

// refusals is a server's log, of which it keeps what was refused.
type refusals struct {
	mu    sync.Mutex
	lines []string
}

func (r *refusals) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines
}

func (r *refusals) Errorf(format string, v ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if line := fmt.Sprintf(format, v...); strings.Contains(line, "Violation") {
		r.lines = append(r.lines, line)
	}
}

func (r *refusals) Noticef(string, ...any) {}
func (r *refusals) Warnf(string, ...any)   {}
func (r *refusals) Fatalf(string, ...any)  {}
func (r *refusals) Debugf(string, ...any)  {}
func (r *refusals) Tracef(string, ...any)  {}
