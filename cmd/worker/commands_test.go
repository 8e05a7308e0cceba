package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// command runs a command as main does and returns its exit status and output.
func command(t *testing.T, env map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, environOf(env), strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

func environOf(env map[string]string) (environ []string) {
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	return environ
}

func TestHealthcheckGoesByReadyz(t *testing.T) {
	ready := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
}

func TestHealthcheckOfAWorkerOnEveryAddress(t *testing.T) {
	for addr, want := range map[string]string{
		":8080": "127.0.0.1:8080", "0.0.0.0:1": "127.0.0.1:1", "[::]:2": "[::1]:2", "10.1.2.3:4": "10.1.2.3:4", "localhost:5": "localhost:5",
	} {
		if got := dialable(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

// TestHelpNamesSettings: each command's help, and its completion, has the
// settings that the command uses and no others.
func TestHelpNamesSettings(t *testing.T) {
	app := model(t)
	for _, node := range app.Leaves(true) {
		_, help, _ := command(t, nil, append(strings.Fields(node.Path()), "--help")...)
		used := map[string]bool{}
		for _, s := range usedSettings(app, node) {
			used[s.env] = true
		}
		for _, s := range settingsOf(app) {
			if shown := strings.Contains(help, " "+s.env+"\n"); shown != used[s.env] {
				t.Errorf("worker %s --help: %s shown %t, used %t", node.Path(), s.env, shown, used[s.env])
			}
			if used[s.env] && !s.secret() && !strings.Contains(help, "--"+s.flag.Name) {
				t.Errorf("worker %s --help: no --%s", node.Path(), s.flag.Name)
			}
		}
	}
	_, help, _ := command(t, nil, "run", "--help")
	for _, s := range settingsOf(app) {
		if !strings.Contains(help, " "+s.env+"\n") {
			t.Errorf("worker run --help: no %s", s.env)
		}
	}
}

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	log, level := newLogger(LogSettings{Level: "warn"}, &out)
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
	log, _ = newLogger(LogSettings{Level: "info", Format: "console"}, &out)
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
		{ExitStatus(1), 1, ""},
		{badInput("machines.csv, line 8: %s", "no comment"), 2, "worker: machines.csv, line 8: no comment\n"},
		{context.DeadlineExceeded, 1, "worker: context deadline exceeded\n"},
	} {
		var stderr bytes.Buffer
		if got := exitStatus(&stderr, c.err); got != c.status || stderr.String() != c.stderr {
			t.Errorf("%v: got %d %q, want %d %q", c.err, got, stderr.String(), c.status, c.stderr)
		}
	}
}
