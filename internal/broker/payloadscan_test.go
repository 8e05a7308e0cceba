package broker_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// TestQueueIsSeenAtAGlance: of a long queue only the blocks come in which something is sought, in order; and the broker counts
// what is behind a message.
func TestQueueIsSeenAtAGlance(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true, SyncInterval: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	const rows = 9000
	for i := range rows {
		if _, err := b.JS().PublishAsync(b.Names().Subject+".bulk", fmt.Appendf(nil, `{"id":"row-%d."}`, i), jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Publish(within(t), message.LaneUrgent, nil, []byte(`{"id":"row-4200."}`)); err != nil {
		t.Fatal(err)
	}
	<-b.JS().PublishAsyncComplete()
	look := func(id string) (all int, found []uint64) {
		for m, err := range b.QueueWith(within(t), func(payload []byte) bool { return bytes.Contains(payload, []byte(id)) }) {
			if err != nil {
				t.Fatal(err)
			}
			if all++; bytes.Contains(m.Data, []byte(id)) {
				found = append(found, m.Sequence)
			}
		}
		return all, found
	}
	if all, found := look(`"row-4200."`); len(found) != 2 || all > rows/2 {
		t.Errorf("row 4200 on two lanes: %v among %d messages", found, all)
	}
	if all, found := look(`"row-8999."`); len(found) != 1 || all > rows/2 {
		t.Errorf("the last row: %v among %d messages", found, all)
	}
	if all, found := look("none"); all != 0 || found != nil {
		t.Errorf("none: %d messages", all)
	}
	if _, found := look(`"id"`); len(found) != rows+1 {
		t.Errorf("%d of all", len(found))
	}

	_, found := look(`"row-8000."`)
	if n, there, err := b.Behind(within(t), message.LaneBulk, found[0]); n != 999 || !there || err != nil {
		t.Errorf("%d behind row 8000, %t, %v", n, there, err)
	}
	s, err := b.JS().Stream(within(t), b.Names().Stream)
	if err == nil {
		err = s.DeleteMsg(within(t), found[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, there, err := b.Behind(within(t), message.LaneBulk, found[0]); n != 999 || there || err != nil {
		t.Errorf("%d behind row 8000, which is gone, %t, %v", n, there, err)
	}
	if n, there, err := b.Behind(within(t), message.LaneUrgent, 1<<40); n != 0 || there || err != nil {
		t.Errorf("%d behind none, %t, %v", n, there, err)
	}
	cfg := s.CachedInfo().Config
	cfg.AllowDirect = false
	if _, err := b.JS().UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	_, found = look(`"row-8990."`)
	if n, there, err := b.Behind(within(t), message.LaneBulk, found[0]); n != 9 || !there || err != nil {
		t.Errorf("without direct reads %d behind row 8990, %t, %v", n, there, err)
	}
}
