package broker_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

func TestEmbeddedInProcess(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.Open(t.Context(), broker.Config{DataDir: dir, Provision: true}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Provision(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b.URL() != "" {
			t.Errorf("URL %q of a broker that does not listen", b.URL())
		}
		// A ledger entry lives as long as its own lifetime says.
		msg := nats.NewMsg("$KV." + broker.LedgerBucket + ".key")
		msg.Data = []byte("final")
		if _, err := b.JS().PublishMsg(t.Context(), msg, jetstream.WithMsgTTL(time.Hour), jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Minute)
		entry, err := b.NewLedger().Load(t.Context(), "key")
		if err != nil || string(entry.Value) != "final" {
			t.Errorf("before the hour is over: %v, %v", entry, err)
		}
		time.Sleep(2 * time.Minute)
		if entry, err = b.NewLedger().Load(t.Context(), "key"); err != nil || entry.Value != nil {
			t.Errorf("after the hour: %v, %v", entry, err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestEmbeddedTakesClients(t *testing.T) {
	log, logs := observed()
	cfg := broker.Config{DataDir: t.TempDir(), EmbeddedAddr: "127.0.0.1:0", EmbeddedToken: "embedded-secret", Provision: true}
	b, err := broker.Open(within(t), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	cfg.EmbeddedAddr = strings.TrimPrefix(b.URL(), "nats://")
	c, err := broker.Dial(within(t), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, c)
	if _, err := c.JS().Publish(within(t), "remediation.unrestrict", []byte("{}")); err != nil {
		t.Error(err)
	}
	for _, token := range []string{"", "wrong-secret"} {
		cfg.EmbeddedToken = token
		_, err := broker.Dial(within(t), cfg, log)
		if _, ok := errors.AsType[*broker.RefusedError](err); !ok {
			t.Errorf("token %q: error %v, want a refusal", token, err)
		}
		wantError(t, err, "WORKER_EMBEDDED_TOKEN")
		wantNoSecret(t, logs, err, "embedded-secret", "wrong-secret")
	}
}

// Without WORKER_EMBEDDED_TOKEN the broker makes a token, which it keeps for this user's own commands; whoever else reaches its
// address is refused.
func TestEmbeddedMakesItsToken(t *testing.T) {
	log, logs := observed()
	cfg := broker.Config{DataDir: filepath.Join(t.TempDir(), "it's here"), EmbeddedAddr: "127.0.0.1:0", Provision: true}
	var tokens []string
	for start := range 3 {
		b, err := broker.Open(within(t), cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(cfg.DataDir, "token")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimSpace(string(text))
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" || len(token) < 20 {
			t.Errorf("start %d: %v, %v, a token of %d characters", start, info, err, len(token))
		}
		command := cfg
		command.EmbeddedAddr = strings.TrimPrefix(b.URL(), "nats://")
		c, err := broker.Dial(within(t), command, log)
		if err != nil {
			t.Fatal(err)
		}
		closeBroker(t, c)
		command.DataDir = t.TempDir()
		_, err = broker.Dial(within(t), command, log)
		wantError(t, err, command.DataDir, "WORKER_DATA_DIR", "WORKER_EMBEDDED_TOKEN")
		if nc, err := nats.Connect(b.URL()); err == nil {
			nc.Close()
			t.Errorf("start %d: a client without the token was let in", start)
		}
		// What the log says is what a shell takes.
		if runtime.GOOS != "windows" {
			out, err := exec.CommandContext(t.Context(), "sh", "-c", b.SignIn()+"\necho $NATS_URL $NATS_TOKEN").Output()
			if want := b.URL() + " " + token + "\n"; err != nil || string(out) != want {
				t.Errorf("%s: %q, %v", b.SignIn(), out, err)
			}
		}
		if logs.FilterField(zap.String("how", b.SignIn())).Len() == 0 {
			t.Error("the log does not say how others sign in")
		}
		wantNoSecret(t, logs, err, token)
		closeBroker(t, b)
		tokens = append(tokens, token)
		if start == 1 { // and a power cut right behind it
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tokens[0] != tokens[1] || tokens[1] == tokens[2] {
		t.Error("the token is to stay over a restart, and to be made anew where it got lost")
	}
}

func TestEmbeddedSyncsBeforeItAcknowledges(t *testing.T) {
	for _, interval := range []bool{false, true} {
		log, logs := observed()
		b, err := broker.Open(within(t), broker.Config{DataDir: t.TempDir(), SyncInterval: interval}, log)
		if err != nil {
			t.Fatal(err)
		}
		closeBroker(t, b)
		if logs.FilterField(zap.Bool("syncAlways", !interval)).Len() != 1 {
			t.Errorf("SyncInterval %v: %v", interval, logs.All())
		}
	}
}

func TestEmbeddedOffLoopback(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	_, err := broker.Open(within(t), broker.Config{DataDir: dir, EmbeddedAddr: "0.0.0.0:0"}, zap.NewNop())
	wantError(t, err, "WORKER_EMBEDDED_ADDR", "WORKER_EMBEDDED_TOKEN")

	log, logs := observed()
	b, err := broker.Open(within(t), broker.Config{DataDir: dir, EmbeddedAddr: "0.0.0.0:0", EmbeddedToken: "secret"}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	if logs.FilterMessageSnippet("in clear").Len() != 1 {
		t.Errorf("no warning that the token is in clear: %v", logs.All())
	}
	if !strings.HasPrefix(b.URL(), "nats://127.0.0.1:") {
		t.Errorf("URL %s", b.URL())
	}
}

func TestEmbeddedTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := broker.Config{DataDir: t.TempDir(), EmbeddedAddr: l.Addr().String()}
	_, err = broker.Open(within(t), cfg, zap.NewNop())
	wantError(t, err, cfg.EmbeddedAddr, "WORKER_EMBEDDED_ADDR")
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v, want EADDRINUSE", err)
	}
	_ = l.Close()
	open(t, cfg)
}

func TestEmbeddedStoreIsLocked(t *testing.T) {
	cfg := broker.Config{DataDir: t.TempDir()}
	b, err := broker.Open(within(t), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	_, err = broker.Open(within(t), cfg, zap.NewNop())
	var locked *broker.LockedError
	if !errors.As(err, &locked) || locked.Owner == "" {
		t.Errorf("error %v, want the lock with its owner", err)
	}
	wantError(t, err, cfg.DataDir, "WORKER_DATA_DIR", "NATS_URL")
	closeBroker(t, b)
	closeBroker(t, b) // twice is fine
	open(t, cfg)
}

func TestEmbeddedKeepsWhatItAcknowledged(t *testing.T) {
	cfg := broker.Config{DataDir: t.TempDir(), EmbeddedAddr: "127.0.0.1:0", Provision: true}
	b, err := broker.Open(within(t), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS().Publish(within(t), "remediation.unrestrict", []byte("acknowledged")); err != nil {
		t.Fatal(err)
	}
	closeBroker(t, b)

	b = open(t, cfg)
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := b.Differences(); len(got) > 0 {
		t.Errorf("differences %q in what was provisioned", got)
	}
	token, err := os.ReadFile(filepath.Join(cfg.DataDir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, broker.Config{URL: b.URL(), Auth: broker.Auth{Token: strings.TrimSpace(string(token))}, Provision: true})
	if err := other.Provision(within(t)); err != nil || len(other.Differences()) > 0 {
		t.Errorf("a second worker at the embedded broker: %v, differences %q", err, other.Differences())
	}
	msg, err := b.Requests(message.LaneNormal).Next(jetstream.FetchMaxWait(5 * time.Second))
	if err != nil || string(msg.Data()) != "acknowledged" {
		t.Errorf("%v, %v", msg, err)
	}
}

func TestCloseStopsTheServerWhateverTheContext(t *testing.T) {
	cfg := broker.Config{DataDir: t.TempDir()}
	b, err := broker.Open(within(t), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = b.Close(ctx) // may have been quick enough
	<-b.Lost()
	open(t, cfg)
}
