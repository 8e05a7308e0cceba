package service

import (
	"context"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
)

// lineGood is how long a snapshot of the line is reused.
const lineGood = 2 * time.Second

// LineCache keeps the last snapshot of the line, for a process with many readers. The zero value is empty.
type LineCache struct {
	mu   sync.Mutex // held during a read; other callers wait for its result
	at   time.Time
	line Line
}

// Look returns a snapshot that is 2 s old at most. If the line can't be read, that is an error, never an older snapshot.
func (c *LineCache) Look(ctx context.Context, b *broker.Broker, s config.Settings) (Line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < lineGood {
		return c.line, nil
	}
	o, err := b.Overview(ctx, config.Windows(s.Rates))
	if err != nil {
		return Line{}, err
	}
	line, err := LookAtLine(ctx, b, o, s)
	if err == nil {
		c.at, c.line = time.Now(), line
	}
	return line, err
}
