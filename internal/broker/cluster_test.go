package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

func TestProvisionInACluster(t *testing.T) {
	servers := runCluster(t)
	js := client(t, servers[0])
	// A bucket of the worker's own that was made with one replica gets more;
	// a stream that is not stays.
	eventually(t, "the cluster's leader", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: broker.StateBucket, LimitMarkerTTL: time.Minute})
		return err == nil
	})
	if _, err := js.CreateStream(within(t), jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}}); err != nil {
		t.Fatal(err)
	}
	var brokers []*broker.Broker
	for _, s := range servers {
		brokers = append(brokers, open(t, broker.Config{URL: s.ClientURL(), Provision: true, Replicas: 3}))
	}
	provisionAtOnce(t, brokers)
	replicas := map[string]int{}
	for _, name := range ownStreams {
		s, err := js.Stream(within(t), name)
		if err != nil {
			t.Fatal(err)
		}
		info := s.CachedInfo()
		if info.Cluster == nil || info.Cluster.Leader == "" {
			t.Errorf("stream %s has no leader", name)
		}
		replicas[name] = info.Config.Replicas
	}
	want := map[string]int{"KV_UNRESTRICT_LEDGER": 3, "KV_UNRESTRICT_STATE": 3, "REMEDIATION": 3, "REMEDIATION_AUDIT": 3, "REMEDIATION_CONTROL": 3, "REMEDIATION_DEADLETTER": 3, "REMEDIATION_RESULTS": 1}
	if diff := cmp.Diff(want, replicas); diff != "" {
		t.Error(diff)
	}
	if got := fmt.Sprint(brokers[0].Differences()); !strings.Contains(got, "REMEDIATION_RESULTS: num_replicas is 1, would be 3") {
		t.Errorf("differences %s", got)
	}
	if _, err := js.Publish(within(t), "remediation.unrestrict", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := brokers[1].Requests(message.LaneNormal).Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil {
		t.Error(err)
	}

	// A replica configured with fewer takes none away.
	b, err := broker.Open(within(t), broker.Config{URL: servers[2].ClientURL(), Provision: true}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if s, err := js.Stream(within(t), "KV_UNRESTRICT_STATE"); err != nil || s.CachedInfo().Config.Replicas != 3 {
		t.Errorf("%v, %v, want 3 replicas", s, err)
	}
}

// TestSaveInACluster: of those that write a key at once at most one wins, and the others know that they lost: a
// compare-and-swap that is lost while the winner is on its way has a code of its own there. The server may still count the
// last round's winner as on its way after it has acknowledged it. Then nobody wins, nothing is written, and the next try may.
func TestSaveInACluster(t *testing.T) {
	var stores []*broker.Ledger
	for _, s := range runCluster(t) {
		b := open(t, broker.Config{URL: s.ClientURL(), Provision: true, Replicas: 3})
		if err := b.Provision(within(t)); err != nil {
			t.Fatal(err)
		}
		stores = append(stores, b.NewLedger())
	}
	revision, wins := uint64(0), 0
	for round := range 20 {
		var mu sync.Mutex
		var won []uint64
		var all sync.WaitGroup
		for n := range 6 {
			all.Go(func() {
				w := ledger.Write{Key: "e.d.id", Value: fmt.Appendf(nil, `{"round":%d,"n":%d}`, round, n), Revision: revision}
				got, err := stores[n%3].Save(within(t), w)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, got)
				case !errors.Is(err, ledger.ErrConflict):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
		now, err := stores[0].Load(within(t), "e.d.id")
		switch {
		case err != nil:
			t.Fatal(err)
		case len(won) > 1:
			t.Fatalf("round %d: %d won", round, len(won))
		case len(won) == 1:
			revision, wins = won[0], wins+1
		}
		if now.Revision != revision {
			t.Fatalf("round %d: revision %d is stored, and %v won after %d", round, now.Revision, won, revision)
		}
	}
	if wins < 10 {
		t.Errorf("%d of 20 rounds had a winner", wins)
	}
}

func runCluster(t *testing.T) []*server.Server {
	t.Helper()
	ports := []int{freePort(t), freePort(t), freePort(t)}
	var routes []string
	for _, port := range ports {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	var servers []*server.Server
	for i, port := range ports {
		servers = append(servers, runServer(t, server.Options{
			ServerName: fmt.Sprint("n", i), JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		}))
	}
	return servers
}
