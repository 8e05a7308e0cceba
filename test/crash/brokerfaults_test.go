package crash_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// The broker is killed again and again amid the work, and comes back with its store.
func TestBrokerIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{api: defendersim.Config{Latency: 100 * time.Millisecond}})
	w.readiness("")
	for round := range 5 {
		for n := range 15 {
			mixed(w, n, fmt.Sprintf("killed-%d-%d", round, n))
		}
		w.brokers[0].kill()
		if round == 2 { // everything at once
			w.replicas[0].kill()
			w.replicas[1].kill()
			w.replicas[2].kill()
		}
		w.brokers[0].run()
		w.startAll()
	}
	w.finish()
	w.readiness("")
}

// The broker is shut down cleanly, and stays down until all replicas report it.
func TestBrokerIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{api: defendersim.Config{Latency: time.Second}})
	w.readiness("")
	for n := range 30 {
		mixed(w, n, fmt.Sprint("stopped-", n))
	}
	until(t, time.Minute, func() string { // amid the calls
		if len(w.api.Calls()) == 0 {
			return "no call"
		}
		return ""
	})
	w.brokers[0].stop()
	w.readiness("broker")
	w.brokers[0].run()
	w.finish()
	w.readiness("")
}

// The network holds everything back for a minute and then delivers it, first while calls are under way.
func TestBrokerIsUnreachableForAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{api: defendersim.Config{Latency: time.Second}})
	w.readiness("")
	for n := range 45 {
		mixed(w, n, fmt.Sprint("unreachable-", n))
	}
	until(t, time.Minute, func() string {
		if len(w.api.Calls()) == 0 {
			return "no call"
		}
		return ""
	})
	for _, r := range w.replicas {
		r.broker.stall(true)
	}
	minute := time.After(time.Minute)
	w.readiness("broker")
	<-minute
	for _, r := range w.replicas {
		r.broker.stall(false)
	}
	w.finish()
	w.readiness("")
}

// Each answer of the broker takes most of the minute's margin, with the limits that are the default.
func TestBrokerIsSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{
		env: []string{"WORKER_RATE_PER_MINUTE=100", "WORKER_RATE_PER_HOUR=1500"},
		api: defendersim.Config{Limits: []defendersim.Limit{{Calls: 100, Per: time.Minute}, {Calls: 1500, Per: time.Hour}}},
	})
	for _, r := range w.replicas {
		r.broker.slow(150 * time.Millisecond)
	}
	for n := range 30 {
		mixed(w, n, fmt.Sprint("slow-", n))
	}
	w.finish()
	w.readiness("")
	if n := w.api.Throttled(); n > 0 {
		t.Errorf("%d calls were over the limit", n)
	}
}

// The connections are cut amid the results: none is lost, none published twice.
func TestResultsSurviveAReconnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.readiness("")
	for n := range 30 {
		for m := range 5 {
			sane(w, fmt.Sprintf("cut-%d-%d", n, m))
		}
		told := w.read
		until(t, time.Minute, func() string { // results are on their way
			if err := w.readResults(t.Context()); err != nil {
				return err.Error()
			}
			if w.read == told {
				return "no result"
			}
			return ""
		})
		w.replicas[n%3].broker.cut()
	}
	w.finish()
}

func TestBrokerIsAbsentAtStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{late: true})
	w.startAll()
	w.readiness("broker")
	for _, r := range w.replicas {
		until(t, time.Minute, func() string {
			if r.lines("waiting to connect to the broker", 1) == "" {
				return "the log does not say what is waited for\n" + r.lines("", 10)
			}
			return ""
		})
	}
	w.runBrokers()
	w.readiness("")
	w.connect()
	for n := range 15 {
		mixed(w, n, fmt.Sprint("absent-", n))
	}
	w.finish()
}

// A full stream of requests refuses more from the publisher, and the requests that it has are carried out.
func TestRequestStreamIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{late: true})
	w.runBrokers()
	w.connect()
	ctx := t.Context()
	js := w.own.JS()
	s, err := js.Stream(ctx, w.own.Names().Stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	if cfg.Discard != jetstream.DiscardNew {
		t.Fatalf("discard policy %v", cfg.Discard)
	}
	cfg.MaxMsgs = 20
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		sane(w, fmt.Sprint("full-", n))
	}
	if _, err := w.own.Publish(ctx, message.LaneNormal, nil, []byte("{}")); err == nil || !strings.Contains(err.Error(), "maximum messages exceeded") {
		t.Fatalf("publishing to a full stream: %v", err)
	}
	w.startAll()
	for n := range 40 { // each waits until there is room
		sane(w, fmt.Sprint("room-", n))
	}
	w.finish()
}

// No stream can be written because there is no space: the replicas pause and report it, make no call that could not be
// recorded, and resume by themselves.
func TestStoreIsFull(t *testing.T) {
	t.Parallel()
	const room = 8 << 20
	w := newWorld(t, options{late: true, maxStore: room})
	w.runBrokers()
	w.connect()
	for n := range 30 {
		mixed(w, n, fmt.Sprint("store-", n))
	}
	ctx := t.Context()
	js := w.own.JS()
	filler, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "FILLER", Subjects: []string{"filler"}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, func() string {
		if _, err := js.Publish(ctx, "filler", make([]byte, room/16)); err == nil {
			return "there is room"
		}
		return ""
	})
	w.startAll()
	w.readiness("store")
	if calls := w.api.Calls(); len(calls) > 0 {
		t.Errorf("calls were made that could not be recorded: %v", calls)
	}
	if err := filler.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	w.finish()
	w.readiness("")
}

// Each of three nodes is killed amid the work; the other two go on without it.
func TestClusterLosesAnyNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{brokers: 3, api: defendersim.Config{Latency: 100 * time.Millisecond}})
	w.readiness("")
	for lost, b := range w.brokers {
		for n := range 15 {
			mixed(w, n, fmt.Sprintf("cluster-%d-%d", lost, n))
		}
		b.kill()
		for n := range 15 {
			mixed(w, n, fmt.Sprintf("without-%d-%d", lost, n))
		}
		w.finish()
		b.run()
		w.whole()
	}
}

// whole waits until every stream has all its replicas up to date.
func (w *world) whole() {
	w.t.Helper()
	until(w.t, 2*time.Minute, func() string {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		streams := w.own.JS().ListStreams(ctx)
		for info := range streams.Info() {
			if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != 2 {
				return info.Config.Name + " has no leader"
			}
			for _, peer := range info.Cluster.Replicas {
				if !peer.Current {
					return info.Config.Name + ": " + peer.Name + " is behind"
				}
			}
		}
		if err := streams.Err(); err != nil {
			return err.Error()
		}
		return ""
	})
}
