package consumer

import (
	"sync"
	"time"
)

// redelivery is how late the broker may redeliver a message after the delay of its nak.
const redelivery = 2 * time.Second

// delays counts the messages that were nakked with a delay which has not passed yet. To the broker they are pending acks
// like those being handled. They are counted by the second, because a fault may nak a whole queue.
type delays struct {
	mu  sync.Mutex
	due map[int64]int // messages by unix second
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
