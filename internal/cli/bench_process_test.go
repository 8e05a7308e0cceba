package cli

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// BenchmarkProcess starts the program itself against a running broker and API. It reports the time from its start to
// the first result in the stream, and its memory when it has nothing to do.
func BenchmarkProcess(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "worker")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	sim := defendersim.New(defendersim.Config{Limits: []defendersim.Limit{}, AllowUnknownMachines: true})
	api := httptest.NewServer(sim)
	defer func() { sim.Close(); api.Close() }()
	dir := b.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(sim.IssueToken(time.Hour)), 0o600); err != nil {
		b.Fatal(err)
	}
	br, err := broker.Open(b.Context(), broker.Config{DataDir: dir, EmbeddedAddr: "127.0.0.1:0", Provision: true}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = br.Close(context.Background()) }()
	if err := br.Provision(b.Context()); err != nil {
		b.Fatal(err)
	}
	var first time.Duration
	var idle int
	b.ResetTimer()
	for n := range b.N {
		took, rss := benchProcess(b, br, n, bin, []string{
			"NATS_URL=" + br.URL(), "WORKER_ADMIN_ADDR=127.0.0.1:0", "DEFENDER_API_URL=" + api.URL,
			"DEFENDER_AUTH=token-file", "DEFENDER_TOKEN_FILE=" + token, "LOG_LEVEL=error",
		})
		first, idle = first+took, idle+rss
	}
	b.ReportMetric(float64(first.Milliseconds())/float64(b.N), "ms-to-first-result")
	b.ReportMetric(float64(idle)/float64(b.N)/1024, "MiB-idle")
	b.ReportMetric(0, "ns/op")
}

func benchProcess(b *testing.B, br *broker.Broker, n int, bin string, env []string) (first time.Duration, rssKiB int) {
	payload := fmt.Sprintf(`{"id":"start-%d-%d","machineId":"%040x","comment":"Cleaned and validated"}`, os.Getpid(), time.Now().UnixNano(), n+1)
	if _, err := br.Publish(b.Context(), nil, []byte(payload)); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "run")
	cmd.Env = env
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	err := br.Follow(ctx, br.Names().ResultsStream, broker.FollowOptions{Since: start}, func(broker.Message) error {
		first = time.Since(start)
		return broker.Enough()
	})
	if err != nil || first == 0 {
		b.Fatalf("no result: %v", err)
	}
	time.Sleep(3 * time.Second) // not waiting for anything: this is what idle means
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		b.Skip("memory is read from /proc: " + err.Error())
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		b.Fatal("no VmRSS")
	}
	rssKiB, _ = strconv.Atoi(string(m[1]))
	return first, rssKiB
}
