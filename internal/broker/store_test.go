//go:build unix

package broker_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"example.com/unrestrict-worker/internal/broker"
)

// limitFiles bounds the size of every file that this process writes, which fails a write as a full disk does. So its test
// runs in a process of its own.
func limitFiles(t *testing.T, bytes uint64) (lift func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(soft uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: soft, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(bytes)
	t.Cleanup(func() { set(before.Cur) })
	return func() { set(before.Cur) }
}

// The server remembers a failed write for good. It is started anew once the store can be written, with all that it had
// acknowledged, and its clients come back by themselves.
func TestEmbeddedStoreFails(t *testing.T) {
	if alone(t) {
		return
	}
	log, _ := observed()
	cfg := broker.Config{DataDir: t.TempDir(), EmbeddedAddr: "127.0.0.1:0", EmbeddedToken: "secret", Provision: true}
	b, err := broker.Open(within(t), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	cfg.EmbeddedAddr = strings.TrimPrefix(b.URL(), "nats://")
	command, err := broker.Dial(within(t), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, command)

	lift := limitFiles(t, 64<<10)
	var sent []string
	var acks []jetstream.PubAckFuture
	send := func(id string) jetstream.PubAckFuture {
		msg := &nats.Msg{Subject: "remediation.unrestrict", Header: nats.Header{jetstream.MsgIDHeader: {id}}, Data: make([]byte, 1024)}
		ack, err := b.JS().PublishMsgAsync(msg)
		if err != nil {
			t.Fatal(err)
		}
		return ack
	}
	eventually(t, "the store to fail", func() bool {
		id := fmt.Sprint("m", len(sent))
		sent, acks = append(sent, id), append(acks, send(id))
		return b.StoreFault().Reason != ""
	})
	acked := map[uint64]string{}
	for i, ack := range acks {
		select {
		case ok := <-ack.Ok():
			acked[ok.Sequence] = sent[i]
		case <-ack.Err():
		}
	}
	if fault := b.StoreFault(); fault.Since.IsZero() || len(acked) == 0 || len(acked) == len(sent) {
		t.Fatalf("%+v, %d of %d acknowledged", fault, len(acked), len(sent))
	}
	eventually(t, "the reason in the words of the disk", func() bool { return strings.Contains(b.StoreFault().Reason, "file too large") })

	lift()
	eventually(t, "the store to heal", func() bool {
		return b.StoreFault().Reason == "" && b.Connected() == nil && command.Connected() == nil
	})
	for _, id := range sent { // as whoever got no acknowledgement does
		msg := &nats.Msg{Subject: "remediation.unrestrict", Header: nats.Header{jetstream.MsgIDHeader: {id}}, Data: make([]byte, 1024)}
		if _, err := command.JS().PublishMsg(within(t), msg); err != nil {
			t.Fatal(err)
		}
	}
	s, err := b.JS().Stream(within(t), "REMEDIATION")
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(within(t), seq)
		if err != nil {
			t.Fatalf("message %d: %v", seq, err)
		}
		id := m.Header.Get(jetstream.MsgIDHeader)
		times[id]++
		if want := acked[seq]; want != "" && id != want {
			t.Errorf("message %d is %s, want %s, which was acknowledged", seq, id, want)
		}
	}
	for _, id := range sent {
		if times[id] != 1 {
			t.Errorf("%s is there %d times", id, times[id])
		}
	}
}

// alone runs the test that calls it in a process of its own, and returns true in the one that waited for it: a bound on every
// file that a process writes would fail the log of go test, too.
func alone(t *testing.T) bool {
	t.Helper()
	const name = "UNRESTRICT_TEST_ALONE"
	if os.Getenv(name) == t.Name() {
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.timeout=5m", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), name+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return true
}
