package service

import (
	"context"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
)

// lineGood is how long one look at the line serves who asks for it.
const lineGood = 2 * time.Second

// LineCache keeps the last look at the line, for a process in which many ask. The zero value is empty.
type LineCache struct {
	mu   sync.Mutex // held while one looks; the others wait for that look
	at   time.Time
	line Line
}

// Look returns a look at the line that is 2 s old at most. What can't be read is an error, never an old look.
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
