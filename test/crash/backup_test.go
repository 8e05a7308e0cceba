package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// keeper is a worker with its embedded broker, and the operator who backs it up.
type keeper struct {
	process
	api   *defendersim.Server
	admin string
	addr  string // of the embedded broker
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	api := defendersim.New(defendersim.Config{
		Limits: []defendersim.Limit{}, AllowUnknownMachines: true, Latency: 250 * time.Millisecond,
		Lifecycle: defendersim.Lifecycle{Pending: 200 * time.Millisecond, InProgress: 200 * time.Millisecond},
	})
	t.Cleanup(api.Close)
	web := httptest.NewServer(api)
	t.Cleanup(web.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(api.IssueToken(24*time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &keeper{api: api, admin: freeAddr(t), addr: freeAddr(t)}
	k.process = process{
		t: t, name: "keeper", log: filepath.Join(t.TempDir(), "log"), argv: []string{worker, "run"},
		env: []string{
			"HOME=" + t.TempDir(), "WORKER_EMBEDDED_ADDR=" + k.addr, "WORKER_ADMIN_ADDR=" + k.admin, "DEFENDER_API_URL=" + web.URL,
			"DEFENDER_AUTH=token-file", "DEFENDER_TOKEN_FILE=" + token, "WORKER_CONCURRENCY=1", "WORKER_POLL_INTERVAL=300ms",
			"WORKER_RATE_PER_MINUTE=0", "WORKER_RATE_PER_HOUR=0", "LOG_FORMAT=json",
		},
	}
	t.Cleanup(k.kill)
	return k
}

// runOn starts it on a store.
func (k *keeper) runOn(data string) {
	k.env = append(k.env, "WORKER_DATA_DIR="+data)
	k.start()
}

// End stops it as the process manager does.
func (k *keeper) End() {
	k.t.Helper()
	if status := k.stop(); status != 0 {
		k.t.Errorf("it ended with %d\n%s", status, k.lines("", 20))
	}
}

// command is what its operator types.
func (k *keeper) command(args ...string) (out string, err error) {
	cmd := exec.Command(worker, args...)
	cmd.Env = k.env
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (k *keeper) must(args ...string) {
	k.t.Helper()
	if out, err := k.command(args...); err != nil {
		k.t.Fatalf("worker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

type status struct {
	Paused   *struct{ Reason string }
	Queue    struct{ Pending, InFlight int }
	Followed int
	Results  map[string]int
}

func (k *keeper) status() (s status, err error) {
	out, _ := k.command("status", "--json") // which ends with 1 during a pause
	return s, json.Unmarshal([]byte(out), &s)
}

// shows waits until `worker status` shows what is waited for.
func (k *keeper) shows(what string, ok func(status) bool) (s status) {
	k.t.Helper()
	until(k.t, time.Minute, func() string {
		var err error
		if s, err = k.status(); err != nil || !ok(s) {
			return fmt.Sprintf("waiting for %s: %+v, %v\n%s", what, s, err, k.lines("", 10))
		}
		return ""
	})
	return s
}

func done(n int) func(status) bool {
	return func(s status) bool { return s.Queue.Pending+s.Queue.InFlight == 0 && s.Results["succeeded"] == n }
}

// actions are how many there are for each comment.
func (k *keeper) actions() map[string]int {
	made := map[string]int{}
	for _, a := range k.api.Actions() {
		made[a.Comment]++
	}
	return made
}

// doubled are those called for more than once.
func (k *keeper) doubled() (n int) {
	for _, times := range k.actions() {
		if times > 1 {
			n++
		}
	}
	return n
}

// beginsPaused expects the pause that is in the store, and no call under it.
func (k *keeper) beginsPaused() {
	k.t.Helper()
	before := len(k.api.Calls())
	k.shows("the pause", func(s status) bool { return s.Paused != nil && s.Paused.Reason == "backup" })
	until(k.t, time.Minute, func() string {
		r := replica{process: process{t: k.t}, admin: k.admin}
		if got := r.readiness(); got != "paused" {
			return "readiness " + got
		}
		return ""
	})
	for _, c := range k.api.Calls()[before:] {
		if c.Op == "unrestrict" {
			k.t.Errorf("called while paused: %+v", c)
		}
	}
}

// docs/operations.md, "Backup and restore", step by step.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	const asked = 16
	k, dir := newKeeper(t), t.TempDir()
	original := filepath.Join(dir, "data")
	k.runOn(original)
	k.shows("a worker", func(s status) bool { return s.Paused == nil })
	rows := "id,machineId,comment\n"
	for n := range asked {
		rows += fmt.Sprintf("kept-%d,%s,kept %d\n", n, machineOf(fmt.Sprint("kept-", n)), n)
	}
	file := filepath.Join(dir, "machines.csv")
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	k.must("submit", "--file", file)

	// Amid the work: pause, wait until nothing is in flight, stop, copy.
	until(t, time.Minute, func() string {
		if len(k.actions()) < 3 {
			return "no calls"
		}
		return ""
	})
	k.must("pause", "--reason", "backup")
	waiting := k.shows("nothing in flight", func(s status) bool { return s.Paused != nil && s.Queue.InFlight == 0 && s.Followed == 0 }).Queue.Pending
	k.End()
	if made := len(k.actions()); made < 3 || waiting < 3 || made+waiting != asked {
		t.Fatalf("%d called for and %d waiting of %d: the pause came too late to show anything", made, waiting, asked)
	}
	for _, name := range []string{"first", "second"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(original)); err != nil {
			t.Fatal(err)
		}
	}

	// The original, or a copy of it as it was left, goes on.
	k.runOn(original)
	k.beginsPaused()
	k.must("resume")
	k.shows("the end of all", done(asked))
	if len(k.actions()) != asked || k.doubled() > 0 {
		t.Fatalf("%d requests called for, %d twice", len(k.actions()), k.doubled())
	}
	k.End()

	// A backup of before: what waited then is thrown away first.
	k.runOn(filepath.Join(dir, "first"))
	k.beginsPaused()
	k.purge()
	k.must("resume")
	k.must("submit", "--machine", machineOf("new"), "--comment", "new", "--wait")
	k.shows("the end of all", done(asked-waiting+1))
	if k.doubled() > 0 || k.actions()["new"] != 1 {
		t.Errorf("%d called for twice: %v", k.doubled(), k.actions())
	}
	k.End()

	// The warning: if it is not thrown away, it is carried out again.
	k.runOn(filepath.Join(dir, "second"))
	k.beginsPaused()
	k.must("resume")
	k.shows("the end of all", done(asked))
	if k.doubled() != waiting {
		t.Errorf("%d called for twice, %d were waiting when the backup was made", k.doubled(), waiting)
	}
	k.End()
	for _, c := range k.complaints() {
		t.Error(c)
	}
}

// purge is `nats stream purge REMEDIATION`.
func (k *keeper) purge() {
	k.t.Helper()
	data := strings.TrimPrefix(k.env[len(k.env)-1], "WORKER_DATA_DIR=")
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		k.t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+k.addr, nats.Token(strings.TrimSpace(string(token))))
	if err != nil {
		k.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), 10*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, "REMEDIATION")
	if err == nil {
		err = s.Purge(ctx)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}
