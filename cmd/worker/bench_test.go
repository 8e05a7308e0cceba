package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/remediation"
)

const (
	benchLatency  = 20 * time.Millisecond
	benchInFlight = 64
)

// BenchmarkChain compares the whole chain (ledger, call, result, acknowledgement) with a loop written by hand that has
// none of it: consume, POST, publish, acknowledge. Both have an API of 20 ms, 64 calls in flight and no rate limit. It
// reports requests a second and CPU per request of each, and their ratios in this one run.
func BenchmarkChain(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("syncAlways=%v", sync), func(b *testing.B) {
			var loop, chain spent
			b.Run("loop", func(b *testing.B) { loop = benchRun(b, sync, benchLoop) })
			b.Run("chain", func(b *testing.B) {
				chain = benchRun(b, sync, benchChain)
				if loop.each > 0 {
					b.ReportMetric(float64(loop.each)/float64(chain.each), "throughput/loop")
					b.ReportMetric(float64(chain.cpu)/float64(loop.cpu), "cpu/loop")
				}
			})
		})
	}
}

type spent struct{ each, cpu time.Duration }

// benchRun queues b.N requests, lets work take them all, and measures from the first to the last result.
func benchRun(b *testing.B, sync bool, work func(*testing.B, *service, string)) spent {
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
	settings, err := settingsFrom(map[string]string{
		"WORKER_DATA_DIR": dir, "WORKER_EMBEDDED_ADDR": "127.0.0.1:0", "WORKER_ADMIN_ADDR": "127.0.0.1:0",
		"WORKER_RATE_PER_MINUTE": "0", "WORKER_RATE_PER_HOUR": "0", "WORKER_CONCURRENCY": fmt.Sprint(benchInFlight),
		"DEFENDER_API_URL": api.URL, "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": token,
	})
	if err != nil {
		b.Fatal(err)
	}
	s, err := newService(settings, os.LookupEnv, zap.NewNop(), zap.NewAtomicLevel())
	if err != nil {
		b.Fatal(err)
	}
	s.syncInterval = !sync
	if err := s.open(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer s.close()
	benchQueue(b, s.broker)

	before := cpuTime()
	b.ResetTimer()
	start := time.Now()
	work(b, s, api.URL)
	took := time.Since(start)
	b.StopTimer()
	cpu := cpuTime() - before
	if n := len(sim.Actions()); n != b.N {
		b.Fatalf("%d actions for %d requests", n, b.N)
	}
	b.ReportMetric(float64(b.N)/took.Seconds(), "req/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/req")
	return spent{took / time.Duration(b.N), cpu / time.Duration(b.N)}
}

func benchQueue(b *testing.B, br *broker.Broker) {
	js := br.JS()
	for n := range b.N {
		payload := fmt.Sprintf(`{"id":"bench-%d","machineId":"%040x","comment":"Cleaned and validated"}`, n, n)
		if _, err := js.PublishAsync(br.Names().Subject, []byte(payload), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

// benchChain is the worker itself.
func benchChain(b *testing.B, s *service, _ string) {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.work(ctx) }()
	stream, err := s.broker.JS().Stream(ctx, s.broker.Names().Stream)
	if err != nil {
		b.Fatal(err)
	}
	for {
		if info, err := stream.Info(ctx); err != nil || info.State.Msgs == 0 {
			break
		}
		select {
		case err := <-done:
			b.Fatal(err)
		case <-time.After(25 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// benchLoop is what one writes by hand in an afternoon.
func benchLoop(b *testing.B, s *service, apiURL string) {
	js, names := s.broker.JS(), s.broker.Names()
	token, err := os.ReadFile(s.settings.Defender.TokenFile)
	if err != nil {
		b.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchInFlight}}
	defer client.CloseIdleConnections()
	it, err := s.broker.Requests().Messages(jetstream.PullMaxMessages(benchInFlight))
	if err != nil {
		b.Fatal(err)
	}
	defer it.Stop()
	var wg sync.WaitGroup
	slots := make(chan struct{}, benchInFlight)
	for range b.N {
		slots <- struct{}{}
		msg, err := it.Next()
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			r, invalid := remediation.Rules{Stream: names.Stream}.Parse(remediation.Delivery{Subject: msg.Subject(), Data: msg.Data(), Header: remediation.Header(msg.Headers())})
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
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
