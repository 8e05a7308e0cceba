package clients

import (
	"time"

	"golang.org/x/time/rate"
)

// rates limit a client: POST and DELETE together, and GET.
type rates struct{ change, read *rate.Limiter }

// reads is the factor by which a client may make more GETs than POSTs and DELETEs.
const reads = 10

// Allow takes one request from what the client may make now, or returns how long until one is free. A reload of the
// file does not reset what is used.
func (s *Set) Allow(c *Client, reading bool) (wait time.Duration, ok bool) {
	s.mu.Lock()
	r := s.rate[c.Name]
	if r == nil {
		r = &rates{rate.NewLimiter(perMinute(c.Rate), c.Rate), rate.NewLimiter(perMinute(c.Rate*reads), c.Rate*reads)}
		s.rate[c.Name] = r
	}
	if r.change.Burst() != c.Rate {
		for limiter, n := range map[*rate.Limiter]int{r.change: c.Rate, r.read: c.Rate * reads} {
			limiter.SetLimit(perMinute(n))
			limiter.SetBurst(n)
		}
	}
	s.mu.Unlock()
	limiter := r.change
	if reading {
		limiter = r.read
	}
	taken := limiter.Reserve()
	if wait = taken.Delay(); wait > 0 {
		taken.Cancel()
		return wait, false
	}
	return 0, true
}

func perMinute(n int) rate.Limit { return rate.Limit(float64(n) / 60) }
