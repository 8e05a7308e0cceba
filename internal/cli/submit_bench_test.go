package cli

import (
	"io"
	"os"
	"runtime"
	"testing"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/rows"
	"example.com/unrestrict-worker/internal/service"
)

// BenchmarkSubmit checks and publishes 10,000 rows of a new batch each time, and reports what the heap, the broker's in
// the same process included, grew by at the most while they were published.
func BenchmarkSubmit(b *testing.B) {
	conn, err := broker.Open(b.Context(), broker.Config{DataDir: b.TempDir(), EmbeddedAddr: "127.0.0.1:0", Provision: true, SyncInterval: true}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(b.Context()) }()
	if err := conn.Provision(b.Context()); err != nil {
		b.Fatal(err)
	}
	path := WriteTestFile(b, "machines.csv", csvOf(10_000))
	settings, err := config.SettingsFrom(nil)
	if err != nil {
		b.Fatal(err)
	}
	env := &session.Env{Settings: settings, Lookup: os.LookupEnv, Stdout: io.Discard, Stderr: io.Discard}
	env.Settings.NATS.URLs = []string{conn.URL()}
	b.ReportAllocs()
	most := uint64(0)
	for b.Loop() {
		before := heap()
		s, done, err := (&submit.Cmd{File: path, Batch: service.RandomID()}).Prepare(b.Context(), env)
		if err != nil {
			b.Fatal(err)
		}
		all := s.Bulk.Rows
		s.Bulk.Rows = func(yield func(rows.Row) bool) {
			for r := range all {
				if r.Line%2000 == 0 {
					most = max(most, heap()-min(before, heap()))
				}
				if !yield(r) {
					return
				}
			}
		}
		if err := s.CarryOut(b.Context(), ""); err != nil || s.Stored != 10_000 {
			b.Fatal(s.Stored, err)
		}
		done()
	}
	b.ReportMetric(float64(most)/(1<<20), "heap-MiB")
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
