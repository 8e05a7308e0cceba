package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
)

// A follower reads what there is, what comes, and goes on where it was when the broker has been away. Somebody's own
// stream may be without direct reads.
func TestFollow(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct=", direct), func(t *testing.T) {
			store := t.TempDir()
			s := runServer(t, server.Options{JetStream: true, StoreDir: store})
			port := s.Addr().(*net.TCPAddr).Port
			b := open(t, broker.Config{URL: s.ClientURL()})
			if err := b.Follow(within(t), "MINE", broker.FollowOptions{}, nil); !broker.IsMissing(err) {
				t.Errorf("a stream that is not there: %v", err)
			}
			_, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "MINE", Subjects: []string{"a.*"}, AllowDirect: direct})
			if err != nil {
				t.Fatal(err)
			}
			n, restarted := 0, make(chan struct{})
			publish := func() {
				n++
				eventually(t, "publish", func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // the answer of a server that stops is lost
					defer cancel()
					_, err := b.JS().Publish(ctx, fmt.Sprintf("a.%d", n), fmt.Appendf(nil, "%d", n), jetstream.WithMsgID(fmt.Sprint(n)))
					return err == nil
				})
			}
			for range 600 { // more than one read
				publish()
			}
			var got []uint64
			err = b.Follow(within(t), "MINE", broker.FollowOptions{}, func(m broker.Message) error {
				got = append(got, m.Sequence)
				if m.Subject != fmt.Sprintf("a.%s", m.Data) {
					t.Errorf("%s is on %s", m.Data, m.Subject)
				}
				switch m.Sequence {
				case 600:
					go func() {
						defer close(restarted)
						stopServer(s)
						runAgain(t, b, server.Options{JetStream: true, StoreDir: store, Port: port})
						publish()
					}()
				case 601:
					return broker.StopFollow()
				}
				return nil
			})
			<-restarted
			if err != nil {
				t.Fatal(err)
			}
			for i, seq := range got {
				if seq != uint64(i+1) {
					t.Fatalf("message %d is %d", i+1, seq)
				}
			}
		})
	}
}

// Reading that begins while the connection is made anew waits for it.
func TestFollowBeginsWithoutAConnection(t *testing.T) {
	store := t.TempDir()
	s := runServer(t, server.Options{JetStream: true, StoreDir: store})
	port := s.Addr().(*net.TCPAddr).Port
	b := open(t, broker.Config{URL: s.ClientURL()})
	if _, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "MINE", Subjects: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS().Publish(within(t), "a", nil); err != nil {
		t.Fatal(err)
	}
	stopServer(s)
	eventually(t, "the loss of the connection", func() bool { return !b.Conn().IsConnected() })
	got := make(chan error, 1)
	go func() {
		got <- b.Follow(within(t), "MINE", broker.FollowOptions{}, func(broker.Message) error { return broker.StopFollow() })
	}()
	select {
	case err := <-got:
		t.Fatalf("it ended: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	runAgain(t, b, server.Options{JetStream: true, StoreDir: store, Port: port})
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// Where reading begins and ends.
func TestFollowFromAndTo(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct=", direct), func(t *testing.T) {
			b := open(t, broker.Config{URL: runJetStream(t).ClientURL()})
			_, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "MINE", Subjects: []string{"a"}, AllowDirect: direct})
			if err != nil {
				t.Fatal(err)
			}
			follow := func(o broker.FollowOptions) (seqs []uint64, times []time.Time) {
				o.ToPresent = true
				err := b.Follow(within(t), "MINE", o, func(m broker.Message) error {
					seqs, times = append(seqs, m.Sequence), append(times, m.Time)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				return seqs, times
			}
			if seqs, _ := follow(broker.FollowOptions{}); seqs != nil {
				t.Errorf("an empty stream has %d", seqs)
			}
			for range 5 {
				if _, err := b.JS().Publish(within(t), "a", nil); err != nil {
					t.Fatal(err)
				}
			}
			_, times := follow(broker.FollowOptions{})
			for _, c := range []struct {
				o    broker.FollowOptions
				want []uint64
			}{
				{broker.FollowOptions{}, []uint64{1, 2, 3, 4, 5}},
				{broker.FollowOptions{From: 4}, []uint64{4, 5}},
				{broker.FollowOptions{From: 6}, nil},
				{broker.FollowOptions{Since: times[2]}, []uint64{3, 4, 5}},
				{broker.FollowOptions{Since: times[4].Add(1)}, nil},
				{broker.FollowOptions{Since: times[4], From: 2}, []uint64{2, 3, 4, 5}},
			} {
				if got, _ := follow(c.o); cmp.Diff(c.want, got) != "" {
					t.Errorf("%+v: %d, want %d", c.o, got, c.want)
				}
			}

			ctx, stop := context.WithCancel(t.Context())
			if err := b.Follow(ctx, "MINE", broker.FollowOptions{From: 5}, func(broker.Message) error { stop(); return nil }); err != nil {
				t.Errorf("an end of ctx: %v", err)
			}
			broken := errors.New("broken")
			if err := b.Follow(within(t), "MINE", broker.FollowOptions{}, func(broker.Message) error { return broken }); !errors.Is(err, broken) {
				t.Errorf("an error of the function: %v", err)
			}
			// A stream that is deleted ends it.
			err = b.Follow(within(t), "MINE", broker.FollowOptions{}, func(m broker.Message) error {
				if m.Sequence == 5 {
					return b.JS().DeleteStream(within(t), "MINE")
				}
				return nil
			})
			if !broker.IsMissing(err) {
				t.Errorf("a stream that was deleted: %v", err)
			}
		})
	}
}
