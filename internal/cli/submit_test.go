package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/cli/why"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/rows"
	"example.com/unrestrict-worker/internal/service"
)

// system is a worker with its broker in this process, and the API it calls.
type system struct {
	dir        string
	sim        *defendersim.Server
	api        *httptest.Server
	log        io.Writer        // nil: none
	stillAfter time.Duration    // of the service
	work       *service.Service // nil: stopped
	stop       func()
}

// newSystem has an API and no worker yet. The caller closes it.
func newSystem(dir string) (*system, error) {
	s := &system{dir: dir, stop: func() {}, sim: defendersim.New(defendersim.Config{
		Limits: []defendersim.Limit{}, AllowUnknownMachines: true, Lifecycle: defendersim.Lifecycle{Pending: -1, InProgress: -1},
	})}
	s.api = httptest.NewServer(s.sim)
	return s, os.WriteFile(filepath.Join(dir, "token"), []byte(s.sim.IssueToken(time.Hour)), 0o600)
}

func (s *system) close() {
	s.stop()
	s.sim.Close()
	s.api.Close()
}

// start runs a worker until it takes requests. After stop it may be started again, with other settings.
func (s *system) start(ctx context.Context, more map[string]string) error {
	variables := map[string]string{
		"WORKER_DATA_DIR": s.dataDir(), "WORKER_EMBEDDED_ADDR": "127.0.0.1:0", "WORKER_ADMIN_ADDR": "127.0.0.1:0",
		"WORKER_RATE_PER_MINUTE": "0", "WORKER_RATE_PER_HOUR": "0", "WORKER_POLL_INTERVAL": "100ms",
		"DEFENDER_API_URL": s.api.URL, "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": filepath.Join(s.dir, "token"),
	}
	maps.Copy(variables, more)
	settings, err := config.SettingsFrom(variables)
	if err != nil {
		return err
	}
	log, level := zap.NewNop(), zap.NewAtomicLevel()
	if s.log != nil {
		log, level = service.NewLogger(config.Log{Level: "info", Format: "json"}, s.log)
	}
	if s.work, err = service.New(settings, os.LookupEnv, log, level); err != nil {
		return err
	}
	s.work.Explain = why.Stories
	s.work.SyncInterval, s.work.StillAfter = true, s.stillAfter
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- s.work.Run(ctx) }()
	s.stop = func() { cancel(); <-s.work.Ended; s.stop = func() {} }
	for {
		if reasons, _ := health.Stopping(s.work.Conditions()); len(reasons) == 0 {
			return nil
		}
		select {
		case err := <-failed:
			return fmt.Errorf("the worker ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *system) addr() string { return strings.TrimPrefix(s.work.Broker.URL(), "nats://") }

// dataDir has the token of the system's broker.
func (s *system) dataDir() string { return filepath.Join(s.dir, "data") }

// refuse makes the API refuse a machine for good.
func (s *system) refuse(machine string) {
	s.sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine, Status: http.StatusBadRequest, Code: "OsPlatformNotSupported", Message: "OS Platform Linux isn't supported for this action."})
}

// runSystem is a system for a test in Go.
func runSystem(t *testing.T, more map[string]string) *system {
	t.Helper()
	s, err := newSystem(t.TempDir())
	if err == nil {
		err = s.start(context.WithoutCancel(t.Context()), more)
	}
	t.Cleanup(s.close)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSubmitScripts types the commands as a user does. Besides those of testscript there are
//
//	worker-runs [VARIABLE=VALUE...]   starts a worker, or starts it anew with other settings
//	machine ID OUTCOME                says how the machine's actions end
//	refuses ID                        makes the API refuse the machine
//	called N                          checks how many calls the API has accepted
//	publishes, letters and final      as in TestOperateScripts
//
// and the seeds ann.nk and bob.nk, whose public nkeys are $ANN and $BOB.
func TestSubmitScripts(t *testing.T) {
	of := func(ts *testscript.TestScript) *system { return ts.Value(systemKey{}).(*system) }
	testscript.Run(t, testscript.Params{
		Dir: "testdata/submit", UpdateScripts: *update, RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s, err := newSystem(env.WorkDir)
			env.Defer(s.close)
			env.Values[systemKey{}] = s
			env.Vars = append(env.Vars, promptly)
			for _, name := range []string{"ann", "bob"} {
				public, seedErr := writeSeed(filepath.Join(env.WorkDir, name+".nk"))
				env.Setenv(strings.ToUpper(name), public)
				err = errors.Join(err, seedErr)
			}
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "publishes": scriptPublish, "letters": scriptLetters, "final": scriptFinal,
			"worker-runs": func(ts *testscript.TestScript, _ bool, args []string) {
				more := map[string]string{}
				for _, arg := range args {
					name, value, _ := strings.Cut(arg, "=")
					more[name] = value
				}
				of(ts).stop()
				ts.Check(of(ts).start(context.WithoutCancel(t.Context()), more))
				ts.Setenv("WORKER_EMBEDDED_ADDR", of(ts).addr())
				ts.Setenv("WORKER_DATA_DIR", of(ts).dataDir())
			},
			"machine": func(ts *testscript.TestScript, _ bool, args []string) {
				of(ts).sim.AddMachine(args[0], defendersim.Machine{Outcome: args[1]})
			},
			"refuses": func(ts *testscript.TestScript, _ bool, args []string) { of(ts).refuse(args[0]) },
			"called": func(ts *testscript.TestScript, _ bool, args []string) {
				if n := fmt.Sprint(len(of(ts).sim.Actions())); n != args[0] {
					ts.Fatalf("%s calls were accepted, want %s", n, args[0])
				}
			},
		},
	})
}

type systemKey struct{}

// writeSeed makes a signer.
func writeSeed(path string) (public string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	seed, err := pair.Seed()
	if err != nil {
		return "", err
	}
	if public, err = pair.PublicKey(); err != nil {
		return "", err
	}
	return public, os.WriteFile(path, append(seed, '\n'), 0o600)
}

// commandEnv is that of a command for a running system.
func commandEnv(s *system) *session.Env {
	env := &session.Env{Settings: s.work.Settings, Lookup: os.LookupEnv, Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}
	env.Settings.Embedded.Addr = s.addr()
	return env
}

func MachineOf(n int) string { return fmt.Sprintf("%040x", n) }

// csvOf has n rows, each with a machine of its own.
func csvOf(n int) string {
	var b strings.Builder
	b.WriteString("machineId,comment\n")
	for i := range n {
		fmt.Fprintf(&b, "%s,row %d\n", MachineOf(i), i)
	}
	return b.String()
}

func WriteTestFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// requestsPublished is how many messages the request stream has ever had.
func requestsPublished(t testing.TB, b *broker.Broker) uint64 {
	t.Helper()
	return lastSequence(t, b, b.Names().Stream)
}

func lastSequence(t testing.TB, b *broker.Broker, stream string) uint64 {
	t.Helper()
	s, err := b.JS().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// TestSubmitInterruptedWhilePublishing: what was said to be queued is, and the same command again publishes the rest.
func TestSubmitInterruptedWhilePublishing(t *testing.T) {
	s := runSystem(t, nil)
	path := WriteTestFile(t, "machines.csv", csvOf(2000))
	env := commandEnv(s)
	submitUntil := func(last int) (*submit.Submission, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		sub, done, err := (&submit.Cmd{File: path, Batch: "monday"}).Prepare(ctx, env)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		all := sub.Bulk.Rows
		sub.Bulk.Rows = func(yield func(r rows.Row) bool) {
			n := 0
			for r := range all {
				if n++; n == last {
					cancel()
				}
				if !yield(r) {
					return
				}
			}
		}
		return sub, sub.CarryOut(ctx, "")
	}
	first, err := submitUntil(700)
	want := fmt.Sprintf("interrupted\n%d of 2000 requests are queued. Run the same command again to go on: no row is carried out twice", first.Stored)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if n := requestsPublished(t, s.work.Broker); n != uint64(first.Stored) || n < 400 || n >= 700 {
		t.Errorf("%d are queued, %d were told", n, first.Stored)
	}
	second, err := submitUntil(0)
	if err != nil || second.Stored != 2000 || second.Duplicates != first.Stored {
		t.Errorf("again: %v, %d stored, %d of them before", err, second.Stored, second.Duplicates)
	}
	if n := requestsPublished(t, s.work.Broker); n != 2000 {
		t.Errorf("%d are queued", n)
	}
}

// TestSubmitInterruptedWhileWaiting: the report has what is known, and the same command again waits on.
func TestSubmitInterruptedWhileWaiting(t *testing.T) {
	s := runSystem(t, nil)
	s.sim.AddMachine(MachineOf(2), defendersim.Machine{Offline: true})
	path, report := WriteTestFile(t, "machines.csv", csvOf(3)), filepath.Join(t.TempDir(), "report.csv")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sub, done, err := (&submit.Cmd{File: path, Batch: "monday", Wait: true}).Prepare(ctx, commandEnv(s))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	go func() { // until the two that can be are done
		for sub.Collector.Progress().Open > 1 && service.Pause(ctx, time.Millisecond) {
		}
		cancel()
	}()
	err = sub.CarryOut(ctx, report)
	if want := "interrupted while 1 request had no final result yet. Run the same command again to go on waiting: no row is carried out twice"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	want := [][]string{
		{"line", "outcome", "final"},
		{"2", "succeeded", "true"},
		{"3", "succeeded", "true"},
		{"4", "submitted", "false"},
	}
	if diff := cmp.Diff(want, reportColumns(t, report, 0, 3, 4)); diff != "" {
		t.Error(diff)
	}
	s.sim.AddMachine(MachineOf(2), defendersim.Machine{})
	if status, stdout, stderr := command(t, map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}, "submit", "--file", path, "--batch", "monday", "--wait", "--report", report); status != 0 || !strings.Contains(stdout, "0 requests published, 3 were already there") {
		t.Errorf("again: exit status %d, %s%s", status, stdout, stderr)
	}
	want[3] = []string{"4", "succeeded", "true"}
	if diff := cmp.Diff(want, reportColumns(t, report, 0, 3, 4)); diff != "" {
		t.Error(diff)
	}
	if n := len(s.sim.Actions()); n != 3 {
		t.Errorf("%d actions", n)
	}
}

func reportColumns(t *testing.T, path string, columns ...int) (rows [][]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range all {
		var row []string
		for _, c := range columns {
			row = append(row, record[c])
		}
		rows = append(rows, row)
	}
	return rows
}
