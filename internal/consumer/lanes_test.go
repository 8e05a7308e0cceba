package consumer_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/message"
)

// journal is the lanes of deliveries in the order in which their handlers began.
type journal struct {
	mu    sync.Mutex
	order strings.Builder
	at    map[string]time.Time // by the message's text
}

func (j *journal) begun(d message.Delivery) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.order.WriteByte(d.Lane[0])
	if j.at == nil {
		j.at = map[string]time.Time{}
	}
	j.at[string(d.Data)] = time.Now()
}

func (b *bench) publishOn(l message.Lane, n int) {
	b.t.Helper()
	for i := range n {
		_, err := b.broker.Publish(b.ctx, l, nil, fmt.Append(nil, l, " ", i))
		b.must(err)
	}
}

// Of one slot that all lanes want urgent has nine of ten turns, and the others share the tenth three to one; each lane is first
// in, first out.
func TestTheOrderAtASlot(t *testing.T) {
	inBench(t, func(b *bench) {
		b.publishOn(message.LaneBulk, 20)
		b.publishOn(message.LaneNormal, 20)
		b.publishOn(message.LaneUrgent, 100)
		var j journal
		b.start(consumer.Config{Slots: 1, UrgentSlots: 5, Lanes: message.Lanes()}, b.handle(func(d message.Delivery) message.Outcome {
			j.begun(d)
			time.Sleep(40 * time.Millisecond)
			return message.Done()
		}))
		b.passes(time.Minute)
		b.wantPending(0)
		order := j.order.String()
		from := strings.IndexByte(order, 'u') + 1 // as it starts it does not know all lanes
		for i := from; i+10 <= 100; i++ {
			if n := strings.Count(order[i:i+10], "u"); n != 9 {
				t.Fatalf("%d of ten were urgent from the %d. on: %s", n, i, order)
			}
		}
		if rest := strings.Trim(strings.ReplaceAll(order[100:], "u", ""), " "); !strings.Contains(rest, "nnnbnnnb") {
			t.Errorf("the others shared as %s", rest)
		}
		last := map[message.Lane]uint64{}
		for _, d := range b.deliveries() {
			if d.Sequence < last[d.Lane] {
				t.Errorf("message %d of %s after %d", d.Sequence, d.Lane, last[d.Lane])
			}
			last[d.Lane] = d.Sequence
		}
	})
}

// However long bulk and normal hang, an urgent message has a slot of its own at once, as many of them as there are; and a slot
// that is given back is anybody's again.
func TestUrgentHasSlotsOfItsOwn(t *testing.T) {
	inBench(t, func(b *bench) {
		const own = 3
		b.publishOn(message.LaneBulk, 10)
		b.publishOn(message.LaneNormal, 10)
		var j journal
		c := b.start(consumer.Config{Slots: 4, UrgentSlots: own, Lanes: message.Lanes()}, func(wait, _ context.Context, d message.Delivery) message.Outcome {
			j.begun(d)
			select { // they hang
			case <-time.After(10 * time.Minute):
			case <-wait.Done():
			}
			return message.Done()
		})
		b.passes(30 * time.Second)
		published := time.Now()
		b.publishOn(message.LaneUrgent, own+1)
		b.passes(time.Minute)
		for i := range own {
			if at := j.at[fmt.Sprint("urgent ", i)]; at.IsZero() || at.Sub(published) > 5*time.Second {
				t.Errorf("urgent message %d began at %v, published at %v", i, at, published)
			}
		}
		if n := c.InFlight(); n != 4+own {
			t.Errorf("%d in hand, want four and urgent's %d", n, own)
		}
		b.passes(time.Hour)
		b.wantPending(0)
	})
}

// A message that waits for a slot for long goes to another replica that has one.
func TestNoMessageIsKeptFromAnotherReplica(t *testing.T) {
	inBench(t, func(b *bench) {
		b.publishOn(message.LaneNormal, 1)
		hangs := make(chan struct{})
		b.start(consumer.Config{Slots: 1}, func(wait, _ context.Context, _ message.Delivery) message.Outcome {
			select {
			case <-hangs:
			case <-wait.Done():
			}
			return message.Done()
		})
		b.passes(time.Second)
		b.publishOn(message.LaneNormal, 1) // the first one pulls it, and has no slot
		b.passes(time.Second)
		b.start(consumer.Config{Slots: 1}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(10 * time.Second)
		b.wantPending(1)
		close(hangs)
		b.passes(time.Second)
		b.wantPending(0)
	})
}
