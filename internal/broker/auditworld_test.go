package broker

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/ledger"
)

// auditWorld is a broker and a way to it that fails when told to.
type auditWorld struct {
	t      *testing.T
	b      *Broker
	faulty *auditFaults
}

func newAuditWorld(t *testing.T) *auditWorld {
	t.Helper()
	b, err := Open(t.Context(), Config{DataDir: t.TempDir(), SyncInterval: true, Provision: true}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	w := &auditWorld{t: t, b: b, faulty: &auditFaults{JetStream: b.js}}
	t.Cleanup(func() {
		w.faulty.late.Wait()
		if err := b.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := b.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// auditor is one process.
func (w *auditWorld) auditor(process string) *Auditor {
	b := *newBroker(w.b.cfg, zap.NewNop())
	b.nc, b.js = w.b.nc, w.faulty
	return b.NewAuditor(process)
}

// auditFaults strikes what is published next to the audit trail.
type auditFaults struct {
	jetstream.JetStream
	late sync.WaitGroup

	mu   sync.Mutex
	next []string // "", "refused", "reply lost", "stored late"
}

func (f *auditFaults) strike(forms ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = forms
}

func (f *auditFaults) PublishMsgAsync(m *nats.Msg, opts ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	f.mu.Lock()
	form := ""
	if len(f.next) > 0 {
		form, f.next = f.next[0], f.next[1:]
	}
	f.mu.Unlock()
	switch form {
	case "refused":
		return failed{&jetstream.APIError{Code: 503, ErrorCode: 10077, Description: "insufficient storage"}}, nil
	case "stored late":
		f.late.Go(func() {
			time.Sleep(50 * time.Millisecond)
			if ack, err := f.JetStream.PublishMsgAsync(m, opts...); err == nil {
				<-ack.Ok()
			}
		})
		return failed{jetstream.ErrAsyncPublishTimeout}, nil
	}
	ack, err := f.JetStream.PublishMsgAsync(m, opts...)
	if form == "reply lost" && err == nil {
		<-ack.Ok()
		return failed{jetstream.ErrAsyncPublishTimeout}, nil
	}
	return ack, err
}

// failed is a future that ended with an error.
type failed struct{ err error }

func (f failed) Ok() <-chan *jetstream.PubAck { return nil }

func (f failed) Msg() *nats.Msg { return nil }

func (f failed) Err() <-chan error {
	ended := make(chan error, 1)
	ended <- f.err
	return ended
}

func lineOf(t *testing.T, m trail.Message) (l trail.Line) {
	t.Helper()
	if err := json.Unmarshal(m.Data, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *auditWorld) trail() (all []trail.Message) {
	w.t.Helper()
	w.faulty.late.Wait()
	stream, err := w.b.OpenAuditTrail(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := stream.Each(w.t.Context(), time.Time{}, func(m trail.Message) error {
		all = append(all, m)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if n := len(all); n > 0 && all[n-1].Sequence != stream.Last() {
		w.t.Errorf("read to %d, want %d", all[n-1].Sequence, stream.Last())
	}
	return all
}

// verify verifies what is in the stream.
func (w *auditWorld) verify() error {
	w.t.Helper()
	stream, err := w.b.OpenAuditTrail(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	chain := trail.NewChain(1, trail.Kept{}, func(seq uint64) ([]byte, error) { return stream.Payload(w.t.Context(), seq) })
	if err := stream.Each(w.t.Context(), time.Time{}, chain.Add); err != nil {
		return err
	}
	return chain.End(stream.Last())
}

// wantWhole verifies the trail and says how often it has each request.
func (w *auditWorld) wantWhole() map[string]int {
	w.t.Helper()
	all := w.trail()
	if err := w.verify(); err != nil {
		w.t.Errorf("the trail is broken: %v", err)
	}
	times := map[string]int{}
	for _, s := range all {
		if l := lineOf(w.t, s); l.Kind != trail.Opened {
			times[l.RequestID]++
		}
	}
	return times
}

func of(id string) ledger.AuditRecord {
	return ledger.AuditRecord{Kind: ledger.AuditDecided, RequestID: id, Outcome: "succeeded"}
}
