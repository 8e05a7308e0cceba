package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/service"
)

// What look-ups will need is left to them before there is anything to follow, by every replica; where nothing is
// followed the whole quota is for requests.
func TestReserveIsKeptWhereActionsAreFollowed(t *testing.T) {
	for _, test := range []struct {
		limit int
		track bool
		calls int // for requests, of the minute
	}{{50, true, 49}, {50, false, 50}, {2, true, 1}, {1, true, 1}, {1, false, 1}} {
		t.Run(fmt.Sprintf("limit %d, track %v", test.limit, test.track), func(t *testing.T) {
			s := runSystem(t, map[string]string{"WORKER_RATE_PER_MINUTE": fmt.Sprint(test.limit), "WORKER_TRACK": fmt.Sprint(test.track)})
			defer s.stop()
			if !service.Pause(t.Context(), 1200*time.Millisecond) { // it has been seen to since
				t.Fatal(context.Cause(t.Context()))
			}
			exhaust := func(use string) (n int) {
				for {
					_, err := s.work.Parts.Budget.Take(t.Context(), use)
					if _, ok := errors.AsType[*budget.WaitError](err); ok {
						return n
					}
					if err != nil {
						t.Fatal(err)
					}
					n++
				}
			}
			if n := exhaust("urgent"); n != test.calls {
				t.Errorf("%d calls for requests, want %d", n, test.calls)
			}
			if n := exhaust("follow"); n != test.limit-test.calls {
				t.Errorf("%d calls for look-ups after that, want %d", n, test.limit-test.calls)
			}
		})
	}
}
