package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/message"
)

// TestResultsGoOn: over a restart of the broker, until they are interrupted, which is their right end.
func TestResultsGoOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	s := runSystem(t, map[string]string{"WORKER_EMBEDDED_ADDR": addr})
	env := []string{"WORKER_EMBEDDED_ADDR=" + addr, "WORKER_DATA_DIR=" + s.dataDir()}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	status := make(chan int, 1)
	go func() {
		code := Run(ctx, []string{"results", "--outcome", "succeeded"}, env, strings.NewReader(""), in, io.Discard)
		_ = in.Close()
		status <- code
	}()
	lines := bufio.NewScanner(out)
	next := func(machine string) {
		t.Helper()
		if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, []byte(`{"machineId":"`+machine+`","comment":"c"}`)); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), "  succeeded  machine "+machine) {
			t.Errorf("got %q", lines.Text())
		}
	}
	next(MachineOf(1))
	s.stop()
	if err := s.start(context.WithoutCancel(t.Context()), map[string]string{"WORKER_EMBEDDED_ADDR": addr}); err != nil {
		t.Fatal(err)
	}
	next(MachineOf(2))
	cancel()
	if lines.Scan() {
		t.Errorf("and %q", lines.Text())
	}
	if code := <-status; code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestResultsWithoutAWorkerEver(t *testing.T) {
	s := runSystem(t, nil)
	status, _, stderr := command(t, map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir(), "WORKER_RESULTS_STREAM": "NONE"}, "results", "--follow=false")
	if status != 1 || !strings.Contains(stderr, "read NONE: ") || !strings.Contains(stderr, "start `worker run`") || !strings.Contains(stderr, "WORKER_RESULTS_STREAM") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

func TestOneLineJSON(t *testing.T) {
	var out strings.Builder
	if err := session.WriteJSONLine(&out, json.RawMessage("{\"a\":\r\n \"<\\n\", \"a\":1.50}")); err != nil || out.String() != `{"a":"<\n","a":1.50}`+"\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
