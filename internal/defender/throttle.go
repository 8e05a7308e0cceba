package defender

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// throttle is the wait after a 429 that names none.
type throttle struct {
	mu   sync.Mutex
	next *backoff.ExponentialBackOff
	last time.Duration
	at   time.Time // when last was set
}

// after is the wait following a hintless 429 to a call granted at that time. The 429s of one burst share one step.
func (t *throttle) after(granted time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == 0 || granted.After(t.at) {
		t.last, t.at = t.next.NextBackOff(), time.Now()
	}
	return t.last
}

func (t *throttle) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next.Reset()
	t.last = 0
}

// throttled closes the budget of all replicas before the caller hears of the 429, even if the caller has gone.
func (c *Client) throttled(ctx context.Context, p Permit, e *Error) {
	if e.RetryAfter == 0 {
		e.RetryAfter = c.throttle.after(p.granted)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := c.budget.Close(ctx, e.RetryAfter); err != nil {
		e.Err = fmt.Errorf("close the budget: %w", err)
	}
}
