package ledger

import "time"

// Stages is how long a run spent in each stage before it had an action, for unrestrict_stage_duration_seconds. It is stored
// in the entry because several processes may handle a run. A crash loses what was not written yet.
type Stages struct {
	Queue      Duration  `json:"queue,omitempty"`     // published to first delivered, by the broker's clock
	Quota      Duration  `json:"quota,omitempty"`     // waiting for the call budget
	QuotaSince time.Time `json:"quotaSince,omitzero"` // when the current wait began; zero: it does not wait
	API        Duration  `json:"api,omitempty"`       // in POSTs
}

// Granted ends a wait for quota. held is how long the handler itself waited for the call.
func (s *Stages) Granted(held time.Duration) {
	s.Quota, s.QuotaSince = Duration(s.WaitedForQuota(time.Now())+held), time.Time{}
}

// WaitedForQuota is the whole wait for quota up to now.
func (s *Stages) WaitedForQuota(now time.Time) time.Duration {
	if s.QuotaSince.IsZero() {
		return time.Duration(s.Quota)
	}
	return time.Duration(s.Quota) + max(now.Sub(s.QuotaSince), 0)
}
