package stream

import "time"

// UntilTick is the time until the next whole multiple of d. All periodic requests of an idle process so coincide, and it sleeps
// in between.
func UntilTick(d time.Duration) time.Duration {
	now := time.Now()
	return now.Truncate(d).Add(d).Sub(now.Round(0))
}
