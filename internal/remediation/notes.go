package remediation

import (
	"sync"
	"time"
)

// Notes is what the Submitter and the Tracker of one process tell each other and its operator. The zero value is ready.
type Notes struct {
	mu       sync.Mutex
	denied   string    // why actions may not be listed; "" while they may be
	quotaHit time.Time // when a request last waited for quota
}

func (n *Notes) mayList(may bool, reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if may {
		reason = ""
	}
	n.denied = reason
}

func (n *Notes) waitedForQuota() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.quotaHit = time.Now()
}

// ListingDenied names the permission that look-ups miss, "" if none.
func (n *Notes) ListingDenied() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.denied
}

// WaitedForQuota is when a request last had to wait for quota; zero: never.
func (n *Notes) WaitedForQuota() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.quotaHit
}
