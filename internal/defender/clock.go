package defender

import (
	"net/http"
	"sync"
	"time"
)

// clock remembers when the API last answered and how far its clock is from ours.
type clock struct {
	mu       sync.Mutex
	answered time.Time
	offset   time.Duration
	measured bool
}

// saw notes an answer of the API to a request written at sent. Date has a resolution of one second and is
// written somewhere between sending and receiving: half a second on is its middle, half way is ours.
func (c *clock) saw(h http.Header, sent, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = received
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		c.offset, c.measured = date.Add(500*time.Millisecond).Sub(sent.Add(received.Sub(sent)/2)), true
	}
}

// Clock is the API's time: our own and the distance measured from its latest Date header, good to about a second.
// measured is false, and the time our own, while no answer has been seen.
func (c *Client) Clock() (now time.Time, measured bool) {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	return time.Now().Add(c.clock.offset), c.clock.measured
}

// Answered is when the API last gave any answer that is Defender's: a 2xx or its error envelope. Zero: never.
func (c *Client) Answered() time.Time {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	return c.clock.answered
}
