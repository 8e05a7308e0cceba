package crash_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// brokerVariable makes the test binary a broker.
const brokerVariable = "CRASH_BROKER"

// brokerSettings are the settings of a broker process.
type brokerSettings struct {
	Name, Addr, Store string
	MaxStore          int64  // bytes; 0: the server's own limit
	Cluster           string // where the others reach it; empty: alone
	Routes            string // the others
}

// serveBroker is a broker until it is killed or asked to end.
func serveBroker(text string) {
	var set brokerSettings
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	opts := &server.Options{
		ServerName: set.Name, JetStream: true, StoreDir: set.Store, JetStreamMaxStore: set.MaxStore, DisableJetStreamBanner: true,
		NoLog: set.Cluster == "",
	}
	opts.Host, opts.Port = split(set.Addr)
	if set.Cluster != "" {
		// The replicas learn no address but those that they were given.
		opts.Cluster = server.ClusterOpts{Name: "crash", NoAdvertise: true}
		opts.Cluster.Host, opts.Cluster.Port = split(set.Cluster)
		opts.Routes = server.RoutesFromStr(set.Routes)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	s.ConfigureLogger()
	s.Start() // ends by itself at SIGTERM
	s.WaitForShutdown()
}

func split(addr string) (string, int) {
	host, digits, _ := net.SplitHostPort(addr)
	port, _ := strconv.Atoi(digits)
	return host, port
}

// brokerProcess is a broker with its store.
type brokerProcess struct {
	process
	addr string
}

func newBrokerProcess(t *testing.T, set brokerSettings) *brokerProcess {
	t.Helper()
	set.Store = t.TempDir()
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &brokerProcess{addr: set.Addr, process: process{
		t: t, name: "broker " + set.Name, log: filepath.Join(t.TempDir(), "log"), argv: []string{self},
		env: append(os.Environ(), brokerVariable+"="+string(text)),
	}}
	t.Cleanup(b.kill)
	return b
}

// run starts it, on its store, and returns when it takes connections.
func (b *brokerProcess) run() {
	b.t.Helper()
	b.start()
	until(b.t, time.Minute, func() string {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
}

// newBrokers is one broker, or a cluster of three, not started yet.
func newBrokers(t *testing.T, n int, maxStore int64) (all []*brokerProcess) {
	t.Helper()
	sets := make([]brokerSettings, n)
	var routes string
	for i := range sets {
		sets[i] = brokerSettings{Name: fmt.Sprint("n", i), Addr: freeAddr(t), MaxStore: maxStore}
		if n > 1 {
			sets[i].Cluster = freeAddr(t)
			routes += ",nats://" + sets[i].Cluster
		}
	}
	for _, set := range sets {
		if n > 1 {
			set.Routes = routes[1:]
		}
		all = append(all, newBrokerProcess(t, set))
	}
	return all
}
