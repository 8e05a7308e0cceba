package rates

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// Three servers, three replicas of everything: the codes of a refusal and of a lost
// compare-and-swap differ there, and the leader of a window can go down.
func TestRateInACluster(t *testing.T) {
	w := &world{tb: t, port: server.RANDOM_PORT, storage: jetstream.FileStorage, replicas: 3}
	servers := w.startCluster()
	windows := budget.Limits(20, 1500)
	a, b := w.replicaOver(w.dial(servers[0]), windows), w.replicaOver(w.dial(servers[1]), windows)
	grants := 0
	take := func(from *replica) (granted bool) {
		t.Helper()
		var wait *budget.WaitError
		_, err := from.Take(t.Context(), "urgent")
		if err == nil {
			grants++
		} else if !errors.As(err, &wait) {
			t.Log(err) // while there is no leader; perhaps spent
		}
		return !errors.As(err, &wait)
	}
	for range 5 {
		take(a)
		take(b)
	}
	if grants != 10 {
		t.Fatalf("%d of 10 calls", grants)
	}
	stream, err := a.js.Stream(t.Context(), "UNRESTRICT_RATE_MINUTE")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if s.Name() == stream.CachedInfo().Cluster.Leader {
			w.stop(s)
		}
	}
	for end := time.Now().Add(45 * time.Second); ; {
		if more := take(a); !more {
			break
		}
		if more := take(b); !more {
			break
		}
		if time.Now().After(end) {
			t.Fatal("neither calls nor an end of them")
		}
	}
	if grants > 20 {
		t.Errorf("%d calls in one minute, want at most 20", grants)
	}
	// The first closure is a create, the others are compare-and-swaps that are lost and repeated: those that are on their
	// way at the same time are refused by another code than those that come too late.
	eventually(t, func() error { return a.Close(t.Context(), time.Minute) })
	for round := range 10 {
		var both sync.WaitGroup
		for n := range 6 {
			r, d := []*replica{a, b}[n%2], time.Duration(10*(round+1)+n)*time.Minute/4
			both.Go(func() {
				if err := r.Close(t.Context(), d); err != nil && strings.Contains(err.Error(), "wrong last sequence") {
					t.Error("a lost compare-and-swap was not repeated:", err)
				}
			})
		}
		both.Wait()
	}
	eventually(t, func() error { return b.Close(t.Context(), time.Hour) })
	eventually(t, func() error {
		if a.opensIn() < 59*time.Minute {
			return fmt.Errorf("closed for %v", a.opensIn())
		}
		return nil
	})
}

func (w *world) startCluster() (servers []*server.Server) {
	w.tb.Helper()
	var ports []int
	var routes []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.tb.Fatal(err)
		}
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, "nats://"+l.Addr().String())
		_ = l.Close()
	}
	for i, port := range ports {
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("rate", i), JetStream: true, StoreDir: w.tb.TempDir(), NoSigs: true, NoLog: true,
			Host: "127.0.0.1", Port: server.RANDOM_PORT, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
			Cluster: server.ClusterOpts{Name: "rate", Host: "127.0.0.1", Port: port},
		})
		if err != nil {
			w.tb.Fatal(err)
		}
		srv.Start()
		w.tb.Cleanup(func() { w.stop(srv) })
		servers = append(servers, srv)
	}
	for _, srv := range servers {
		if !srv.ReadyForConnections(20 * time.Second) {
			w.tb.Fatal("a server is not ready")
		}
	}
	return servers
}
