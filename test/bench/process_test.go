package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// site is a broker and an API, with workers as processes.
type site struct {
	b   *testing.B
	sim *defendersim.Server
	br  *broker.Broker
	env []string
	bin string
}

func newSite(b *testing.B, bin string, sim defendersim.Config, env ...string) *site {
	b.Helper()
	s := &site{b: b, sim: defendersim.New(sim), bin: bin}
	api := httptest.NewServer(s.sim)
	b.Cleanup(func() { s.sim.Close(); api.Close() })
	dir := b.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(s.sim.IssueToken(24*time.Hour)), 0o600); err != nil {
		b.Fatal(err)
	}
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		b.Fatal(err)
	}
	nats.Start()
	b.Cleanup(nats.Shutdown)
	if s.br, err = broker.Open(b.Context(), broker.Config{URL: nats.ClientURL(), Provision: true, AckWait: 5 * time.Second}, zap.NewNop()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.br.Close(context.Background()) })
	if err := s.br.Provision(b.Context()); err != nil {
		b.Fatal(err)
	}
	s.env = append([]string{
		"NATS_URL=" + nats.ClientURL(), "WORKER_ADMIN_ADDR=127.0.0.1:0", "DEFENDER_API_URL=" + api.URL, "WORKER_ACK_WAIT=5s",
		"DEFENDER_AUTH=token-file", "DEFENDER_TOKEN_FILE=" + token, "LOG_LEVEL=error", "WORKER_RATE_PER_HOUR=0",
	}, env...)
	return s
}

// run starts a worker. kill ends it at once, and waits.
func (s *site) run() (pid int, kill func()) {
	s.b.Helper()
	cmd := exec.CommandContext(s.b.Context(), s.bin, "run")
	cmd.Env, cmd.Stderr = s.env, os.Stderr
	if err := cmd.Start(); err != nil {
		s.b.Fatal(err)
	}
	return cmd.Process.Pid, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}

func (s *site) publish(from, n int) {
	s.b.Helper()
	for i := from; i < from+n; i++ {
		payload := fmt.Sprintf(`{"id":"r-%d","machineId":"%040x","comment":"Cleaned and validated"}`, i, i+1)
		if _, err := s.br.JS().PublishAsync(s.br.Names().Subject, []byte(payload), jetstream.WithStallWait(time.Minute)); err != nil {
			s.b.Fatal(err)
		}
		if i%500 == 499 {
			<-s.br.JS().PublishAsyncComplete()
		}
	}
	<-s.br.JS().PublishAsyncComplete()
}

// results calls fn for each result from now on, until it says that it has enough.
func (s *site) results(since time.Time, fn func(message.Result, time.Time) (enough bool)) {
	s.b.Helper()
	ctx, cancel := context.WithTimeout(s.b.Context(), 20*time.Minute)
	defer cancel()
	err := s.br.Follow(ctx, s.br.Names().ResultsStream, broker.FollowOptions{Since: since}, func(m broker.Message) error {
		var r message.Result
		if json.Unmarshal(m.Data, &r) == nil && fn(r, m.Time) {
			return broker.StopFollow()
		}
		return nil
	})
	if err != nil || ctx.Err() != nil {
		s.b.Fatal(err, ctx.Err())
	}
}

// process measures a worker that has nothing to do but its first request.
func process(b *testing.B, t *table) {
	s := newSite(b, t.bin, defendersim.Config{Limits: []defendersim.Limit{}, AllowUnknownMachines: true})
	if info, err := os.Stat(s.bin); err == nil {
		t.row("binary, MB", float64(info.Size())/1e6, none, "(30)")
	}
	var first []float64
	for n := range 5 {
		s.publish(n, 1)
		start := time.Now()
		_, kill := s.run()
		s.results(start, func(message.Result, time.Time) bool { return true })
		first = append(first, float64(time.Since(start).Milliseconds()))
		kill()
	}
	t.row("time to the first result from a cold start, ms", median(first), none, "")
	pid, kill := s.run()
	defer kill()
	time.Sleep(60 * time.Second) // not waiting for anything: this is what at rest means
	const watched = 30 * time.Second
	before := usage(b, pid)
	time.Sleep(watched)
	after := usage(b, pid)
	t.row("at rest: context switches a second", (after.switches-before.switches)/watched.Seconds(), none, "(20)")
	t.row("at rest: CPU a second, ms", (after.cpu-before.cpu)/watched.Seconds(), none, "(0.5)")
	t.row("at rest: resident, MB", after.resident, none, fmt.Sprintf("(24); %.0f MB of it is the program itself", after.mapped))
}

type used struct{ switches, cpu, resident, mapped float64 }

// usage reads what a process has used, from /proc.
func usage(b *testing.B, pid int) (u used) {
	b.Helper()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			b.Skip("what a process uses is read from /proc: " + err.Error())
		}
		return string(text)
	}
	field := func(text, name string) float64 {
		m := regexp.MustCompile(name + `:\s+(\d+)`).FindStringSubmatch(text)
		if m == nil {
			b.Fatal("no " + name)
		}
		n, _ := strconv.ParseFloat(m[1], 64)
		return n
	}
	status := read(fmt.Sprintf("/proc/%d/status", pid))
	u.resident, u.mapped = field(status, "VmRSS")/1000, field(status, "RssFile")/1000
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, thread := range threads {
		status := read(thread + "/status")
		u.switches += field(status, "voluntary_ctxt_switches") + field(status, "nonvoluntary_ctxt_switches")
		ns, _ := strconv.ParseFloat(strings.Fields(read(thread + "/schedstat"))[0], 64)
		u.cpu += ns / 1e6
	}
	return u
}

// memory measures a worker with many requests that it can't carry out yet.
func memory(b *testing.B, t *table) {
	const many = 50_000
	for name, env := range map[string]string{"waiting": "WORKER_RATE_PER_HOUR=60", "followed": "WORKER_CONCURRENCY=64"} {
		s := newSite(b, t.bin, defendersim.Config{Limits: []defendersim.Limit{}, AllowUnknownMachines: true, CallLog: -1, Lifecycle: defendersim.Lifecycle{Pending: 24 * time.Hour}},
			"WORKER_RATE_PER_MINUTE=0", env)
		pid, kill := s.run()
		start, n := time.Now(), 0
		s.publish(0, many)
		if name == "followed" {
			s.results(start, func(message.Result, time.Time) bool { n++; return n == many })
		}
		time.Sleep(20 * time.Second)
		t.row(fmt.Sprintf("resident with %d %s, MB", many, name), usage(b, pid).resident, none, "")
		kill()
	}
}
