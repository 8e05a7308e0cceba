package consumer

import (
	"sync"
	"time"
)

// redelivery is how late the broker may redeliver what was handed back with a delay.
const redelivery = 2 * time.Second

// delays counts the messages that were handed back with a delay that still runs: to the broker they are out like those in
// hand. They are kept by the second, for a fault may hand back a whole queue.
type delays struct {
	mu  sync.Mutex
	due map[int64]int // unix second: how many
}

func (d *delays) add(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due == nil {
		d.due = map[int64]int{}
	}
	d.due[time.Now().Add(delay+redelivery).Unix()]++
}

func (d *delays) count() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now().Unix()
	for second, some := range d.due {
		if second < now {
			delete(d.due, second)
		} else {
			n += some
		}
	}
	return n
}
