package ledger

import "time"

// Stages is how long a run spent before it had an action, for unrestrict_stage_duration_seconds. It is in the entry since
// a run goes through several hands. A process that dies takes what it had not written yet with it.
type Stages struct {
	Queue      Duration  `json:"queue,omitempty"`     // published to first taken, by the broker's clock
	Quota      Duration  `json:"quota,omitempty"`     // waited for the call budget
	QuotaSince time.Time `json:"quotaSince,omitzero"` // given back for want of it; zero: it has what it needs
	API        Duration  `json:"api,omitempty"`       // in POSTs
}

// Granted ends a wait for quota. held is how long the call was waited for in hand.
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
