package cli

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// write replaces a file as a careful program does.
func (p *conditionPlace) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// drop deletes a stream, and returns how it was.
func (p *conditionPlace) drop(t *testing.T, name string) jetstream.StreamConfig {
	t.Helper()
	stream, err := p.js.Stream(t.Context(), name)
	if err == nil {
		err = p.js.DeleteStream(t.Context(), name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

// fill stores a message that is nobody's.
func (p *conditionPlace) fill(t *testing.T, subject string) {
	t.Helper()
	if _, err := p.js.Publish(t.Context(), subject, []byte("{}")); err != nil {
		t.Fatal(err)
	}
}

// consumer gives the consumer other settings, and returns what gives it its own again.
func (p *conditionPlace) consumer(t *testing.T, change func(*jetstream.ConsumerConfig)) (undo func()) {
	t.Helper()
	consumer, err := p.js.Consumer(t.Context(), "REMEDIATION", "unrestrict-worker")
	if err != nil {
		t.Fatal(err)
	}
	was := consumer.CachedInfo().Config
	is := was
	change(&is)
	if _, err := p.js.UpdateConsumer(t.Context(), "REMEDIATION", is); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := p.js.UpdateConsumer(t.Context(), "REMEDIATION", was); err != nil {
			t.Error(err)
		}
	}
}

// isTakenByAnother publishes requests until somebody else has pulled one, which then is the one that is asked about.
func (p *conditionPlace) isTakenByAnother(t *testing.T) {
	t.Helper()
	consumer, err := p.js.Consumer(t.Context(), "REMEDIATION", "unrestrict-worker")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("pulled", n)
		p.publish(t, id, n)
		for msg := range batch.Messages() {
			if strings.Contains(string(msg.Data()), id) {
				return
			}
			t.Fatalf("pulled %s", msg.Data())
		}
	}
}

// limit gives a stream other settings, and returns what gives it its own again.
func (p *conditionPlace) limit(t *testing.T, name string, change func(*jetstream.StreamConfig)) (undo func()) {
	t.Helper()
	stream, err := p.js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	was := stream.CachedInfo().Config
	is := was
	change(&is)
	if _, err := p.js.UpdateStream(t.Context(), is); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := p.js.UpdateStream(t.Context(), was); err != nil {
			t.Error(err)
		}
	}
}

// slowLine is a way to the broker that takes its time.
type slowLine struct {
	to    int
	delay atomic.Int64 // of all that is sent, in each direction
}

func (l *slowLine) listen(t *testing.T) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var lines sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); lines.Wait() })
	lines.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			broker, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", l.to))
			if err != nil {
				_ = client.Close()
				continue
			}
			lines.Go(func() { l.carry(client, broker) })
			lines.Go(func() { l.carry(broker, client) })
		}
	})
	return "nats://" + listener.Addr().String()
}

// carry brings each piece on when it is due: one that waits holds up no other.
func (l *slowLine) carry(from, to net.Conn) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1<<10)
	go func() {
		defer close(pieces)
		for read := make([]byte, 1<<16); ; {
			n, err := from.Read(read)
			pieces <- piece{time.Now().Add(time.Duration(l.delay.Load())), bytes.Clone(read[:n])}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	_, _ = from.Close(), to.Close()
	for range pieces { // until the reader has seen it
	}
}
