package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/service"
)

// command runs a command as main does and returns its exit status and output.
func command(t *testing.T, env map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs watched
	status = Run(t.Context(), args, environOf(env), strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

// watched is output that may be read while it grows. Like a file, it takes what is written from several goroutines: the NATS client
// reports errors from one of its own, which may still log one when the command ends.
type watched struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func environOf(env map[string]string) (environ []string) {
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	return environ
}

func TestHealthcheckGoesByReadyz(t *testing.T) {
	ready, asked := true, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Authorization")
		if r.URL.Path != "/readyz" || !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"reasons":["change freeze 42"]}`)
		}
	}))
	defer server.Close()
	env := map[string]string{"WORKER_ADMIN_ADDR": server.Listener.Addr().String(), "WORKER_CONCURRENCY": "none of its business"}
	if status, _, stderr := command(t, env, "healthcheck"); status != 0 {
		t.Errorf("ready: exit status %d, %s", status, stderr)
	}
	ready = false
	if status, _, stderr := command(t, env, "healthcheck"); status != 1 || !strings.Contains(stderr, "change freeze 42") {
		t.Errorf("not ready: exit status %d, %s", status, stderr)
	}
	env["WORKER_ADMIN_TOKEN"] = "the-token"
	if _, _, stderr := command(t, env, "healthcheck"); asked != "Bearer the-token" || strings.Contains(stderr, "the-token") {
		t.Errorf("the token opens the reasons' texts: sent %q, said %s", asked, stderr)
	}
}

func TestHealthcheckOfAWorkerOnEveryAddress(t *testing.T) {
	for addr, want := range map[string]string{
		":8080": "127.0.0.1:8080", "0.0.0.0:1": "127.0.0.1:1", "[::]:2": "[::1]:2", "10.1.2.3:4": "10.1.2.3:4", "localhost:5": "localhost:5",
	} {
		if got := broker.Dialable(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

// TestHelpNamesSettings: each command's help, and its completion, has the settings that the command uses and no others,
// behind its own flags. Those that all share are named there; what each means, and its flag and default, stand in
// `worker help settings`.
func TestHelpNamesSettings(t *testing.T) {
	app := commandTable(t)
	_, meanings, _ := command(t, nil, "help", "settings")
	for _, node := range app.Model.Leaves(true) {
		_, help, _ := command(t, nil, append(strings.Fields(node.Path()), "--help")...)
		own, settings, _ := strings.Cut(help, "\nSettings")
		used := map[string]bool{}
		for _, s := range app.used(node) {
			used[s.Env] = true
		}
		tabulated := strings.HasPrefix(settings, ": flag, variable, default.")
		if len(used) == len(app.table.Settings) {
			if !strings.HasPrefix(settings, ": all of them") {
				t.Errorf("worker %s --help: %s", node.Path(), settings)
			}
			continue
		}
		if n := strings.Count(settings, "\n"); !tabulated && n > 9 {
			t.Errorf("worker %s --help has %d lines of settings that others have too", node.Path(), n)
		}
		for _, s := range app.table.Settings {
			if shown := slices.Contains(strings.Fields(settings), s.Env); shown != used[s.Env] || strings.Contains(own, "--"+s.Flag+"=VALUE") {
				t.Errorf("worker %s --help: %s shown %t, used %t", node.Path(), s.Env, shown, used[s.Env])
			}
			if tabulated && used[s.Env] && !s.Secret && !strings.Contains(settings, "--"+s.Flag) {
				t.Errorf("worker %s --help: no --%s", node.Path(), s.Flag)
			}
		}
	}
	_, help, _ := command(t, nil, "run", "--help")
	for _, s := range app.table.Settings {
		// What run leaves to `worker intake` it does not look at.
		if strings.Contains(help, "  "+s.Env+" ") == (s.Group == "intake") || !strings.Contains(meanings, s.FlagForm()) || !strings.Contains(meanings, " "+s.Env+"\n") {
			t.Errorf("no %s in worker run --help, or in worker help settings", s.Env)
		}
	}
}

// TestHelpExamples: each command's help has two, which the program takes.
func TestHelpExamples(t *testing.T) {
	all := examples()
	for _, node := range commandTable(t).Model.Leaves(true) {
		lines := all[node.Path()]
		delete(all, node.Path())
		if len(lines) != 2 {
			t.Errorf("worker %s: %d examples", node.Path(), len(lines))
		}
		_, help, _ := command(t, nil, append(strings.Fields(node.Path()), "--help")...)
		for _, line := range lines {
			if first, _, _ := strings.Cut(help, "\nFlags"); !strings.Contains(first, "\n    "+line+"\n") {
				t.Errorf("worker %s --help does not begin with %s", node.Path(), line)
			}
			for _, words := range shellCommands(strings.TrimSuffix(strings.TrimPrefix(line, "source <("), ")")) {
				for strings.Contains(words[0], "=") {
					words = words[1:]
				}
				if words[0] == "worker" {
					parses(t, "example", words[1:])
				}
			}
		}
	}
	if len(all) > 0 {
		t.Errorf("examples of no command: %v", all)
	}
}

// TestTypedDurations: people count in days too.
func TestTypedDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "0d": 0, "99999d": 99999 * 24 * time.Hour} {
		if got, err := config.ParseDuration(text); got != want || err != nil {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "2", "2days", "2d3", "1.5d", "-2d", "999999d", "12h2d"} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
	if status, _, stderr := command(t, nil, "results", "--since", "yesterday"); status != 2 || !strings.Contains(stderr, `--since: "yesterday" is no duration; give a number with its unit, such as 90s, 15m, 36h or 2d`) {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

func commandTable(t *testing.T) *commandLine {
	t.Helper()
	c, err := newCommandLine(io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	log, level := service.NewLogger(config.Log{Level: "warn"}, &out)
	log.Info("not written")
	level.SetLevel(zap.InfoLevel)
	log.Info("written", zap.Duration("wait", 1500*time.Millisecond))
	var line struct {
		Level, Msg, Wait string
		Time             time.Time
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	if line.Level != "info" || line.Msg != "written" || line.Wait != "1.5s" || time.Since(line.Time).Abs() > time.Hour {
		t.Errorf("got %s", out.Bytes())
	}
	out.Reset()
	log, _ = service.NewLogger(config.Log{Level: "info", Format: "console"}, &out)
	log.Warn("for people")
	if !strings.Contains(out.String(), "WARN\tfor people") {
		t.Errorf("got %s", out.Bytes())
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		stderr string
	}{
		{nil, 0, ""},
		{session.ExitStatus(1), 1, ""},
		{config.BadInput("machines.csv, line 8: %s", "no comment"), 2, "worker: machines.csv, line 8: no comment\n"},
		{context.DeadlineExceeded, 1, "worker: context deadline exceeded\n"},
	} {
		var stderr bytes.Buffer
		if got := exitStatus(&stderr, c.err); got != c.status || stderr.String() != c.stderr {
			t.Errorf("%v: got %d %q, want %d %q", c.err, got, stderr.String(), c.status, c.stderr)
		}
	}
}
