package stream

import "time"

// UntilTick is the time until the next whole multiple of d. So all periodic requests of an idle process coincide, and it sleeps in
// between.
func UntilTick(d time.Duration) time.Duration {
	now := time.Now()
	return now.Truncate(d).Add(d).Sub(now.Round(0))
}
