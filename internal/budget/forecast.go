package budget

import "time"

// Used is a window with the calls that count in it.
type Used struct {
	Window
	Reserve int         // of the limit, not to be used
	Grants  []time.Time // oldest first
}

// Forecast is when the place-th call from now on may be made (1 is the next one), if every call is made as soon as all
// windows allow it and nobody else makes any: it walks the windows forward, in which each call counts for as long as the
// grants that are there.
func Forecast(now time.Time, windows []Used, place int) time.Time {
	grants := make([][]time.Time, len(windows))
	for i, w := range windows {
		grants[i] = w.Grants[max(0, len(w.Grants)-w.room()):len(w.Grants):len(w.Grants)]
	}
	at := now
	for range place {
		for i, w := range windows {
			if n := len(grants[i]) - w.room(); w.Limit > 0 && n >= 0 {
				if free := grants[i][n].Add(w.Lasts()); free.After(at) {
					at = free
				}
			}
		}
		for i := range windows {
			grants[i] = append(grants[i], at)
		}
	}
	return at
}

// room is how many calls may count in the window at once.
func (w Used) room() int { return max(1, w.Limit-w.Reserve) }
