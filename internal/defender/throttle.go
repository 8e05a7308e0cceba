package defender

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// throttle computes the wait after a 429 that names none.
type throttle struct {
	mu   sync.Mutex
	next *backoff.ExponentialBackOff
	last time.Duration
	at   time.Time // when last was set
}

// after is the wait after a 429 without a hint, to a call granted at that time. All 429s of one burst share one backoff
// step.
func (t *throttle) after(granted time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == 0 || granted.After(t.at) {
		t.last, t.at = t.next.NextBackOff(), time.Now()
	}
	return t.last
}

func (t *throttle) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next.Reset()
	t.last = 0
}

// throttled closes the budget of all replicas before the caller gets the 429, even if the caller has gone.
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

// requestsAgain matches the wait in the API's message: "You can send requests again in 8 seconds."
var requestsAgain = regexp.MustCompile(`(?i)\bin (\d+) seconds?\b`)

// retryAfter is how long an answer asks to wait: the header in seconds or as a date, relative to the answer's own Date
// (our clock without one), else the seconds named in the message. 0: it names no time. The value is kept however long
// it is; one that no Duration can hold becomes the longest Duration.
func retryAfter(h http.Header, message string, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if d, ok := seconds(value); ok && d > 0 {
		return d
	}
	if at, err := http.ParseTime(value); err == nil {
		if sent, err := http.ParseTime(h.Get("Date")); err == nil {
			now = sent
		}
		if d := at.Sub(now); d > 0 {
			return d
		}
	}
	if m := requestsAgain.FindStringSubmatch(message); m != nil {
		d, _ := seconds(m[1])
		return d
	}
	return 0
}

func seconds(digits string) (time.Duration, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/int64(time.Second) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * time.Second, true
}
