package defender

import (
	"net/http"
	"sync"
	"time"
)

// clock records when the API last answered, and how far its clock is from ours. The API writes Date at some instant
// between sending and receiving, so each answer gives a lower and an upper bound. Several answers together narrow them.
type clock struct {
	mu          sync.Mutex
	answered    time.Time
	least, most time.Duration // the API's clock less ours
	since       time.Time     // when the first answer came that the bounds rest on; zero: never measured
}

// boundsFor is how long an answer's bounds are trusted, because clocks drift and get set.
const boundsFor = 10 * time.Minute

// observe records an answer of the API to a request written at sent. Date has a resolution of one second.
func (c *clock) observe(h http.Header, sent, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = received
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	least, most := date.Sub(received), date.Add(time.Second).Sub(sent)
	if !c.since.IsZero() && received.Sub(c.since) < boundsFor {
		if l, m := max(least, c.least), min(most, c.most); l <= m {
			c.least, c.most = l, m
			return
		}
	}
	c.least, c.most, c.since = least, most, received
}

// Clock is the API's time, which lies between earliest and latest. Before the first answer measured is false, and both
// are this machine's time.
func (c *Client) Clock() (earliest, latest time.Time, measured bool) {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	now := time.Now()
	return now.Add(c.clock.least), now.Add(c.clock.most), !c.clock.since.IsZero()
}

// Answered is when Defender itself last answered: with a 2xx or its error envelope. Zero: never.
func (c *Client) Answered() time.Time {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	return c.clock.answered
}
