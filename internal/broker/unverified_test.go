package broker_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

const (
	mostLetters     = 10_000
	mostLetterBytes = 32 << 20
)

// letterBox is a stream of dead letters and those who publish to it.
type letterBox struct {
	t      *testing.T
	broker *broker.Broker
	stream jetstream.Stream
	n      uint64
}

func newLetterBox(t *testing.T, denied bool) *letterBox {
	t.Helper()
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true, SyncInterval: true})
	if denied {
		if _, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "REMEDIATION_DEADLETTER", Subjects: []string{"remediation.deadletter"}, DenyDelete: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	stream, err := b.JS().Stream(within(t), "REMEDIATION_DEADLETTER")
	if err != nil {
		t.Fatal(err)
	}
	return &letterBox{t: t, broker: b, stream: stream}
}

// letter is the dead letter of a message of its own.
func (b *letterBox) letter(size int, unverified bool) message.DeadLetter {
	b.n++
	return message.DeadLetter{
		Delivery: message.Delivery{Stream: "REMEDIATION", Subject: "remediation.unrestrict", Sequence: b.n, Data: []byte(strings.Repeat("x", size)), Published: time.Now()},
		Code:     message.CodeMalformed, RequestID: fmt.Sprint("REMEDIATION:", b.n), Run: 1, Time: time.Now(), Unverified: unverified,
	}
}

func (b *letterBox) publish(p *broker.Publisher, size, n int, unverified bool) {
	b.t.Helper()
	for range n {
		d := b.letter(size, unverified)
		if err := p.DeadLetter(within(b.t), d, d.Delivery.Published); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *letterBox) state() jetstream.StreamState {
	b.t.Helper()
	info, err := b.stream.Info(within(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	return info.State
}

// TestUnverifiedLettersAreBoundedInNumber: the last are kept, whichever replica or earlier process wrote them, and no
// other dead letter has to go for them.
func TestUnverifiedLettersAreBoundedInNumber(t *testing.T) {
	box := newLetterBox(t, false)
	first, second := box.broker.NewPublisher(), box.broker.NewPublisher()
	box.publish(first, 1, 2, false)
	box.publish(first, 1, mostLetters, true)
	if s := box.state(); s.Msgs != mostLetters+2 || first.NotKept() != 0 {
		t.Fatalf("%d letters, %d not kept", s.Msgs, first.NotKept())
	}
	box.publish(second, 1, 3, true)
	if s := box.state(); s.Msgs != mostLetters+2 || first.NotKept()+second.NotKept() != 3 {
		t.Errorf("%d letters, %d not kept", s.Msgs, second.NotKept())
	}
	for seq, want := range map[uint64]bool{1: true, 2: true, 3: false, 5: false, 6: true} {
		if _, _, there, err := first.Load(within(t), seq); err != nil || there != want {
			t.Errorf("letter %d: %v, %v", seq, there, err)
		}
	}
	if err := first.Drop(within(t), 6); err != nil { // by an operator: the next to go is gone already
		t.Fatal(err)
	}
	box.publish(second, 1, 1, true)
	if s := box.state(); s.Msgs != mostLetters+2 {
		t.Errorf("%d letters", s.Msgs)
	}
}

// TestUnverifiedLettersAreBoundedInSize: at most 32 MiB are kept, and a letter published again after a crash costs no other.
func TestUnverifiedLettersAreBoundedInSize(t *testing.T) {
	box := newLetterBox(t, false)
	p := box.broker.NewPublisher()
	box.publish(p, message.MaxPayload, 1, false)
	box.publish(p, message.MaxPayload, 600, true)
	s := box.state()
	if kept := s.Bytes - message.MaxPayload; kept > mostLetterBytes+600*40 || kept < mostLetterBytes-2*message.MaxPayload {
		t.Errorf("%d bytes", s.Bytes)
	}
	if _, _, there, err := p.Load(within(t), 1); err != nil || !there {
		t.Errorf("another's letter: %v, %v", there, err)
	}
	again := box.letter(message.MaxPayload, true)
	for range 2 {
		if err := p.DeadLetter(within(t), again, again.Delivery.Published); err != nil {
			t.Fatal(err)
		}
	}
	if after := box.state(); after.Msgs != s.Msgs {
		t.Errorf("%d letters, before %d", after.Msgs, s.Msgs)
	}
}

// TestUnverifiedLettersWhereNothingMayBeDeleted: what is beyond is not written, and others' are.
func TestUnverifiedLettersWhereNothingMayBeDeleted(t *testing.T) {
	box := newLetterBox(t, true)
	p := box.broker.NewPublisher()
	box.publish(p, message.MaxPayload, 600, true)
	s := box.state()
	if s.Bytes > mostLetterBytes+600*40 || p.NotKept() == 0 || int(s.Msgs)+p.NotKept() != 600 {
		t.Errorf("%d letters of %d bytes, %d not kept", s.Msgs, s.Bytes, p.NotKept())
	}
	box.publish(p, message.MaxPayload, 1, false)
	if after := box.state(); after.Msgs != s.Msgs+1 {
		t.Errorf("another's letter is not written: %d, before %d", after.Msgs, s.Msgs)
	}
}

// TestUnverifiedResultsAreBounded: of results the last are kept likewise, and where they can't be deleted all are written.
func TestUnverifiedResultsAreBounded(t *testing.T) {
	for _, denied := range []bool{false, true} {
		b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true, SyncInterval: true})
		if _, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, DenyDelete: denied, Duplicates: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		if err := b.Provision(within(t)); err != nil {
			t.Fatal(err)
		}
		stream, err := b.JS().Stream(within(t), "REMEDIATION_RESULTS")
		if err != nil {
			t.Fatal(err)
		}
		p := teller{b.NewPublisher(), b, stream}
		p.tell(t, "other", time.Now())
		for n := range mostLetters + 5 {
			r := result(fmt.Sprint("REMEDIATION:", n+1))
			r.Outcome, r.Unverified = message.Rejected, true
			if err := p.Result(within(t), r, message.Trace{}, "", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if denied {
			p.holds(t, mostLetters+5+1)
		} else {
			p.holds(t, mostLetters+1)
		}
	}
}

// TestUnverifiedWithoutTheRightToDelete: where the broker does not let the worker delete, no more dead letters are written,
// all results are, and nobody waits for it each time.
func TestUnverifiedWithoutTheRightToDelete(t *testing.T) {
	box := newLetterBox(t, false)
	p := box.broker.NewPublisher()
	box.publish(p, message.MaxPayload, 480, true)
	cfg := box.stream.CachedInfo().Config
	cfg.Sealed = false
	cfg.DenyDelete = true // set while it is in use: what was seen of the stream says otherwise
	if _, err := box.broker.JS().UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	box.publish(p, message.MaxPayload, 60, true)
	s := box.state()
	if int(s.Msgs)+p.NotKept() != 540 || s.Bytes > mostLetterBytes+uint64(message.MaxPayload)+600*40 {
		t.Errorf("%d letters of %d bytes, %d not kept", s.Msgs, s.Bytes, p.NotKept())
	}
}

// TestUnverifiedAtOnce: many that publish at once stay within the bounds together.
func TestUnverifiedAtOnce(t *testing.T) {
	box := newLetterBox(t, false)
	p := box.broker.NewPublisher()
	var letters []message.DeadLetter
	for range 800 {
		letters = append(letters, box.letter(message.MaxPayload, true))
	}
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			for i := n; i < len(letters); i += 16 {
				if err := p.DeadLetter(within(t), letters[i], letters[i].Delivery.Published); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s := box.state()
	if int(s.Msgs)+p.NotKept() != 800 || s.Bytes > mostLetterBytes+600*40 || s.Bytes < mostLetterBytes-2*message.MaxPayload {
		t.Errorf("%d letters of %d bytes, %d not kept", s.Msgs, s.Bytes, p.NotKept())
	}
}
