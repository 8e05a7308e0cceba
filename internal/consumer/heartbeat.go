package consumer

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// heartbeat sends the broker an in-progress acknowledgement every third of AckWait.
type heartbeat struct {
	mu    sync.Mutex
	timer *time.Timer // nil: stopped
}

func (c *Consumer) keepAlive(msg *nats.Msg) *heartbeat {
	every := c.cfg.AckWait / 3
	h := &heartbeat{}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(every, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.timer != nil {
			_ = msg.InProgress() // lost: redelivered, which the ledger makes harmless
			h.timer.Reset(every)
		}
	})
	return h
}

func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
	h.timer = nil
}
