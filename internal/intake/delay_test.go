package intake

import (
	"testing"
	"time"
)

func TestDelayDoubles(t *testing.T) {
	for times, want := range map[int]time.Duration{0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 10: 2560 * time.Second, 11: time.Hour, 1 << 40: time.Hour} {
		if got := delayAfter(times); got != want {
			t.Errorf("after %d tries: %s, want %s", times, got, want)
		}
	}
}
