package intake

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/intake/clients"
)

func TestDelayDoubles(t *testing.T) {
	for times, want := range map[int]time.Duration{0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 10: 2560 * time.Second, 11: time.Hour, 1 << 40: time.Hour} {
		if got := delayAfter(times); got != want {
			t.Errorf("after %d tries: %s, want %s", times, got, want)
		}
	}
}

func TestWhyNobodyIsKnown(t *testing.T) {
	for err, want := range map[error]int{
		clients.ErrUnauthenticated: http.StatusUnauthorized, clients.ErrForbidden: http.StatusForbidden, clients.ErrIssuer: http.StatusServiceUnavailable,
	} {
		if got := signInProblem(fmt.Errorf("sign in: %w", err)); got.Status != want {
			t.Errorf("%v: %d, want %d", err, got.Status, want)
		}
	}
}
