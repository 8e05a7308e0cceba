package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
)

// A broker comes back without streams that it kept in memory, or with an empty store: they are made again, and a process
// that goes on bears witness that the ledger was lost. The audit trail begins anew, and is whole.
func TestBrokerComesBackWithout(t *testing.T) {
	for name, empty := range map[string]bool{"streams in memory": false, "an empty store": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := server.Options{Port: freePort(t), JetStream: true, StoreDir: t.TempDir()}
			s := runServer(t, opts)
			js := client(t, s)
			for stream, subject := range map[string]string{"REMEDIATION": "remediation.unrestrict", "REMEDIATION_RESULTS": "remediation.results"} {
				cfg := jetstream.StreamConfig{Name: stream, Subjects: []string{subject}, Storage: jetstream.MemoryStorage, Retention: jetstream.WorkQueuePolicy}
				if _, err := js.CreateStream(within(t), cfg); err != nil {
					t.Fatal(err)
				}
			}
			b, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Provision: true}, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			defer closeBroker(t, b)
			if err := b.Provision(within(t)); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- b.Keep(ctx) }()
			defer func() { stop(); <-ended }()
			auditor := b.NewAuditor("p")
			record := func(id string) {
				t.Helper()
				if err := auditor.Record(within(t), ledger.AuditRecord{Kind: ledger.AuditDecided, RequestID: id}); err != nil {
					t.Error(err)
				}
			}
			record("before")

			stopServer(s)
			if empty {
				opts.StoreDir = t.TempDir()
			}
			runServer(t, opts)
			eventually(t, "the streams", func() bool {
				for _, stream := range []string{"REMEDIATION", "REMEDIATION_RESULTS", "REMEDIATION_DEADLETTER", broker.AuditStream, "KV_UNRESTRICT_LEDGER", "KV_UNRESTRICT_STATE"} {
					if _, err := b.JS().Stream(t.Context(), stream); err != nil {
						return false
					}
				}
				_, err := b.JS().Consumer(t.Context(), "REMEDIATION", "unrestrict-worker")
				_, lost := health.Has(b.Conditions(), health.LedgerLost)
				return err == nil && lost == empty && b.LedgerLostBefore().IsZero() != empty
			})
			record("after")
			audit, err := b.OpenAuditTrail(within(t))
			if err != nil {
				t.Fatal(err)
			}
			chain := trail.NewChain(1, trail.Kept{}, func(seq uint64) ([]byte, error) { return audit.Payload(t.Context(), seq) })
			if err := audit.Each(within(t), time.Time{}, chain.Add); err != nil {
				t.Error(err)
			}
			if err := chain.End(audit.Last()); err != nil || len(chain.Found().Heads) == 0 {
				t.Errorf("%v, %+v", err, chain.Found())
			}
		})
	}
}
