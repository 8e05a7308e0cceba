//go:build unix

package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/storetest"
)

// The server remembers a failed write for good. It is started anew once the store can be written, with all that it had
// acknowledged, and its clients come back by themselves.
func TestEmbeddedStoreFails(t *testing.T) {
	if storetest.Alone(t) {
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

	lift := storetest.Bound(t, 64<<10)
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
