package remediation

import (
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Backoff is the delay between attempts at one request.
type Backoff struct {
	Initial, Max  time.Duration
	Multiplier    float64
	Randomization float64 // 0.5: half to one and a half times
}

// Delay is the wait after failure n, counted from 0. It depends only on n, so that any replica can continue the backoff.
func (b Backoff) Delay(n int) time.Duration {
	d := float64(b.Initial) * math.Pow(b.Multiplier, float64(n))
	eb := backoff.ExponentialBackOff{
		InitialInterval: time.Duration(min(d, float64(b.Max))), RandomizationFactor: b.Randomization,
		Multiplier: b.Multiplier, MaxInterval: b.Max, Clock: backoff.SystemClock,
	}
	eb.Reset()
	return eb.NextBackOff()
}
