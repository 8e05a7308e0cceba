package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"example.com/unrestrict-worker/internal/broker"
)

// runServer is a NATS server apart from the worker, as an operator runs one.
func runServer(t *testing.T, opts server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.NoSigs, opts.NoLog = "127.0.0.1", true, true
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if opts.JetStream && opts.StoreDir == "" {
		opts.StoreDir = t.TempDir()
	}
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { stopServer(s) })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server takes no connections")
	}
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

func runJetStream(t *testing.T) *server.Server {
	t.Helper()
	return runServer(t, server.Options{JetStream: true})
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return zap.New(core), logs
}

// open opens a broker that the end of the test closes.
func open(t *testing.T, cfg broker.Config) *broker.Broker {
	t.Helper()
	b, err := broker.Open(within(t), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBroker(t, b) })
	return b
}

func closeBroker(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

// runAgain starts a server anew that b is connected to, so that b is closed before it.
func runAgain(t *testing.T, b *broker.Broker, opts server.Options) {
	t.Helper()
	runServer(t, opts)
	t.Cleanup(func() { closeBroker(t, b) })
}

// client is a connection that is not the worker's.
func client(t *testing.T, s *server.Server) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for %s", what)
		}
	}
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q, want %q in it", err, word)
		}
	}
}

// wantNoSecret looks for secrets in an error and in all that was logged.
func wantNoSecret(t *testing.T, logs *observer.ObservedLogs, err error, secrets ...string) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintln(&text, err)
	for _, e := range logs.All() {
		fmt.Fprintln(&text, e.Message, e.ContextMap())
	}
	for _, secret := range secrets {
		if strings.Contains(text.String(), secret) {
			t.Errorf("the secret %q came out: %s", secret, text.String())
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestAbsentBrokerIsAwaited(t *testing.T) {
	port := freePort(t)
	reasons := make(chan string, 100)
	cfg := broker.Config{URL: fmt.Sprintf("nats://user:hunter2@127.0.0.1:%d", port), OnWait: func(reason string) { reasons <- reason }}
	log, logs := observed()
	type opened struct {
		b   *broker.Broker
		err error
	}
	done := make(chan opened, 1)
	go func() {
		b, err := broker.Open(within(t), cfg, log)
		done <- opened{b, err}
	}()
	if reason := <-reasons; !strings.Contains(reason, "no servers available") {
		t.Errorf("reason %q", reason)
	}
	runServer(t, server.Options{Port: port, Username: "user", Password: "hunter2"})
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer closeBroker(t, o.b)
	if err := o.b.Connected(); err != nil {
		t.Error(err)
	}
	if want := fmt.Sprintf("nats://127.0.0.1:%d", port); o.b.URL() != want {
		t.Errorf("URL %s, want %s", o.b.URL(), want)
	}
	wantNoSecret(t, logs, nil, "hunter2", "user:")
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	// A listener that never says a word holds up the client library, which
	// knows no context, but not Open.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("told to stop")
	done := make(chan error, 1)
	go func() {
		_, err := broker.Open(ctx, broker.Config{URL: l.Addr().String()}, zap.NewNop())
		done <- err
	}()
	c := <-accepted
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("error %v, want %v", err, stop)
	}
	// Open is back and the library's attempt goes on until it times out.
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Open returned only after the attempt: %v", err)
	}
	_ = c.Close()
	_ = l.Close()
}

func TestDialSaysWhatToDo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	absent := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	_, err := broker.Dial(ctx, broker.Config{EmbeddedAddr: absent}, zap.NewNop())
	wantError(t, err, absent, "`worker run`", "WORKER_EMBEDDED_ADDR", "NATS_URL")
	_, err = broker.Dial(ctx, broker.Config{URL: absent}, zap.NewNop())
	wantError(t, err, absent, "NATS_URL")
}

func TestReconnectsEvenAfterRefusals(t *testing.T) {
	opts := server.Options{Port: freePort(t), Authorization: "right-token"}
	s := runServer(t, opts)
	log, logs := observed()
	b, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Auth: broker.Auth{Token: "right-token"}}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)

	stopServer(s)
	eventually(t, "the loss", func() bool { return b.Connected() != nil })
	opts.Authorization = "another-token"
	if err := b.Conn().Publish("x", nil); err == nil {
		t.Error("a message is kept to be sent some time")
	}
	s = runServer(t, opts)
	// The client library gives up for good after two refusals, left to itself.
	eventually(t, "three refusals", func() bool { return b.Conn().Stats().Reconnects >= 3 })
	wantError(t, b.Connected(), "Authorization Violation", "NATS_TOKEN")
	select {
	case <-b.Lost():
		t.Fatal("the connection ended for good")
	default:
	}

	stopServer(s)
	opts.Authorization = "right-token"
	runServer(t, opts)
	eventually(t, "the connection", func() bool { return b.Connected() == nil })
	wantNoSecret(t, logs, nil, "right-token", "another-token")
	if n := logs.FilterMessageSnippet("authorization").Len(); n != 1 {
		t.Errorf("%d log lines of the refusals, want 1", n)
	}
}

func TestLostForGood(t *testing.T) {
	s := runServer(t, server.Options{MaxPayload: 1024})
	b := open(t, broker.Config{URL: s.ClientURL()})
	if b.MaxPayload() != 1024 {
		t.Errorf("MaxPayload %d", b.MaxPayload())
	}
	// An oversized control line is a breach of the protocol, after which the
	// client library reconnects no more.
	_ = b.Conn().Publish(strings.Repeat("x", 8192), nil)
	_ = b.Conn().Flush()
	<-b.Lost()
	wantError(t, b.Connected(), "control line")
}
