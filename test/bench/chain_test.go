package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

const (
	benchLatency  = 20 * time.Millisecond
	benchInFlight = 64
)

// load compares the whole chain (ledger, call, audit record, result, acknowledgement) with a loop written by hand that
// has none of it: consume, POST, publish, acknowledge. Both have an API of 20 ms, 64 calls in flight and no rate limit.
// They take turns, because the speed of a machine varies. It reports medians, also of the ratios of each turn.
func load(b *testing.B, t *table) {
	const turns, requests = 5, 3000
	for _, sync := range []bool{false, true} {
		var rate, cpu [3][]float64 // of chain, loop, and the first by the second
		for range turns {
			loop, chain := benchRun(b, sync, requests, benchLoop), benchRun(b, sync, requests, benchChain)
			for i, v := range []spent{chain, loop} {
				rate[i], cpu[i] = append(rate[i], float64(time.Second)/float64(v.each)), append(cpu[i], float64(v.cpu)/1000)
			}
			rate[2], cpu[2] = append(rate[2], float64(loop.each)/float64(chain.each)), append(cpu[2], float64(chain.cpu)/float64(loop.cpu))
		}
		name := map[bool]string{false: "load, disk written later", true: "load, each write on disk"}[sync]
		t.row(name+": requests a second", median(rate[0]), median(rate[1]), fmt.Sprintf("%.2f of the loop's (0.85)", median(rate[2])))
		t.row(name+": CPU a request, us", median(cpu[0]), median(cpu[1]), fmt.Sprintf("%.2f times the loop's (2.2)", median(cpu[2])))
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

type spent struct{ each, cpu time.Duration }

// stopwatch measures from begin, when the first request is taken, to end, when the last is acknowledged: starting and
// stopping do not count.
type stopwatch struct {
	b           *testing.B
	n           int
	start, stop time.Time
	cpu         time.Duration
}

func (m *stopwatch) begin() {
	m.start, m.cpu = time.Now(), cpuTime()
}

func (m *stopwatch) End() {
	m.stop, m.cpu = time.Now(), cpuTime()-m.cpu
}

func (m *stopwatch) each() spent {
	n := time.Duration(m.n)
	return spent{m.stop.Sub(m.start) / n, m.cpu / n}
}

// benchRun queues requests and lets work take them all.
func benchRun(b *testing.B, sync bool, n int, work func(*stopwatch, *service.Service, string)) spent {
	b.Helper()
	sim := defendersim.New(defendersim.Config{
		Limits: []defendersim.Limit{}, AllowUnknownMachines: true, CallLog: -1, Latency: benchLatency,
		Lifecycle: defendersim.Lifecycle{Pending: time.Hour},
	})
	api := httptest.NewServer(sim)
	defer func() { sim.Close(); api.Close() }()
	dir := b.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(sim.IssueToken(time.Hour)), 0o600); err != nil {
		b.Fatal(err)
	}
	old := time.Now().Add(-time.Minute) // as a file that is not being written
	if err := os.Chtimes(token, old, old); err != nil {
		b.Fatal(err)
	}
	settings, err := config.SettingsFrom(map[string]string{
		"WORKER_DATA_DIR": dir, "WORKER_EMBEDDED_ADDR": "127.0.0.1:0", "WORKER_ADMIN_ADDR": "127.0.0.1:0",
		"WORKER_RATE_PER_MINUTE": "0", "WORKER_RATE_PER_HOUR": "0", "WORKER_CONCURRENCY": fmt.Sprint(benchInFlight),
		"DEFENDER_API_URL": api.URL, "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": token,
	})
	if err != nil {
		b.Fatal(err)
	}
	s, err := service.New(settings, os.LookupEnv, zap.NewNop(), zap.NewAtomicLevel())
	if err != nil {
		b.Fatal(err)
	}
	s.SyncInterval = !sync
	if err := s.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	benchQueue(b, s.Broker, n)

	m := &stopwatch{b: b, n: n}
	work(m, s, api.URL)
	if got := len(sim.Actions()); got != n {
		b.Fatalf("%d actions for %d requests", got, n)
	}
	return m.each()
}

func benchQueue(b *testing.B, br *broker.Broker, requests int) {
	js := br.JS()
	for n := range requests {
		payload := fmt.Sprintf(`{"id":"bench-%d","machineId":"%040x","comment":"Cleaned and validated"}`, n, n)
		if _, err := js.PublishAsync(br.Names().Subject, []byte(payload), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

// benchChain is the worker itself.
func benchChain(m *stopwatch, s *service.Service, _ string) {
	b := m.b
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Work(ctx) }()
	inFlight := func() int {
		s.Mu.Lock()
		defer s.Mu.Unlock()
		if s.Parts == nil {
			return 0
		}
		return s.Parts.Consumer.InFlight()
	}
	pending := func() int {
		_, n, err := s.Broker.Pending(ctx)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	every := func(d time.Duration, ready func() bool) {
		for !ready() {
			select {
			case err := <-done:
				b.Fatal(err)
			case <-time.After(d):
			}
		}
	}
	every(time.Millisecond, func() bool { return inFlight() > 0 })
	m.begin()
	every(5*time.Millisecond, func() bool { return inFlight() == 0 && pending() == 0 })
	m.End()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// benchLoop is what one writes by hand in an afternoon.
func benchLoop(m *stopwatch, s *service.Service, apiURL string) {
	b := m.b
	js, names := s.Broker.JS(), s.Broker.Names()
	token, err := os.ReadFile(s.Settings.Defender.TokenFile)
	if err != nil {
		b.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchInFlight}}
	defer client.CloseIdleConnections()
	it, err := s.Broker.Requests(message.LaneNormal).Messages(jetstream.PullMaxMessages(benchInFlight))
	if err != nil {
		b.Fatal(err)
	}
	defer it.Stop()
	var wg sync.WaitGroup
	slots := make(chan struct{}, benchInFlight)
	m.begin()
	for range m.n {
		slots <- struct{}{}
		msg, err := it.Next()
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			r, invalid := message.Rules{Stream: names.Stream}.Parse(message.Delivery{Subject: msg.Subject(), Data: msg.Data(), Header: message.Header(msg.Headers())})
			if invalid != nil {
				b.Error(invalid)
				return
			}
			req, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, apiURL+"/api/machines/"+r.MachineID+"/unrestrictCodeExecution", bytes.NewReader([]byte(`{"Comment":"Cleaned and validated"}`)))
			req.Header.Set("Authorization", "Bearer "+string(token))
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			action, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusCreated {
				b.Error(resp.StatusCode, err)
				return
			}
			if _, err := js.Publish(b.Context(), names.ResultsSubject, action, jetstream.WithMsgID(r.ID)); err != nil {
				b.Error(err)
				return
			}
			if err := msg.Ack(); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	m.End()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
