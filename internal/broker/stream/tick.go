package stream

import "time"

// UntilTick is the rest of the present interval, counted from a time that is the same for all: what a process at rest asks
// the broker now and then it asks at once, and sleeps in between.
func UntilTick(d time.Duration) time.Duration {
	now := time.Now()
	return now.Truncate(d).Add(d).Sub(now.Round(0))
}
