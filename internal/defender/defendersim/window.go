package defendersim

import (
	"fmt"
	"time"
)

// Limit is a sliding window: at most Calls accepted calls in any span of Per.
// Calls of zero or less: no limit.
type Limit struct {
	Calls int
	Per   time.Duration
}

// window holds the times of all accepted calls, ascending, as time since the
// Server's start: one log serves every limit and the oracle.
type window struct {
	limits   []Limit
	accepted []time.Duration
	refused  int
}

// full returns the limit that is used up now, and how long until it has room again (the longest such wait); a wait of
// zero: there is room.
func (w *window) full(now time.Duration) (Limit, time.Duration) {
	var which Limit
	var longest time.Duration
	for _, l := range w.limits {
		if l.Calls <= 0 || len(w.accepted) < l.Calls {
			continue
		}
		oldest := w.accepted[len(w.accepted)-l.Calls]
		if wait := oldest + l.Per - now; wait > longest {
			which, longest = l, wait
		}
	}
	return which, longest
}

func (w *window) accept(now time.Duration) { w.accepted = append(w.accepted, now) }

// most is the greatest number of accepted calls in any span [t, t+per).
func (w *window) most(per time.Duration) int {
	most, first := 0, 0
	for last, at := range w.accepted {
		for at-w.accepted[first] >= per {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// MaxInWindow is the oracle of the rate windows: the most accepted calls in any
// sliding window of that length since the start.
func (s *Server) MaxInWindow(per time.Duration) int {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.gate.window.most(per)
}

// Throttled counts the 429 answers of the windows, without injected ones.
func (s *Server) Throttled() int {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.gate.window.refused
}

// quotaExceeded is the 429 as seen live: the code is "429" and not the documented TooManyRequests, the target is the
// tenant. wait 0: the answer names none.
func quotaExceeded(l Limit, wait time.Duration, tenant string) reply {
	per := int(l.Per.Seconds())
	message := fmt.Sprintf("API calls quota exceeded! Maximum allowed %d per %02d:%02d:%02d for the key Destination+TenantID+AppID.",
		l.Calls, per/3600, per/60%60, per%60)
	if wait > 0 {
		message += fmt.Sprintf(" You can send requests again in %d seconds.", seconds(wait))
	}
	rep := failureFor(tenant, 429, "429", message)
	rep.retryAfter(wait)
	return rep
}

// cpuExceeded is the 429 about CPU time: the page names that reason ([doc] common-errors.md); the text is [composed].
func cpuExceeded(wait time.Duration, tenant string) reply {
	rep := failureFor(tenant, 429, "429", fmt.Sprintf(
		"API calls quota exceeded! Maximum allowed CPU time exceeded for the key Destination+TenantID+AppID. You can send requests again in %d seconds.", seconds(wait)))
	rep.retryAfter(wait)
	return rep
}

// seconds rounds up, so that a client that waits so long is admitted.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
