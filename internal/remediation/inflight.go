package remediation

import "sync"

// inFlight are the requests that this process is handling. The ledger excludes other processes, this map other handlers.
type inFlight struct {
	mu  sync.Mutex
	now map[string]struct{}
}

func (f *inFlight) enter(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, busy := f.now[key]; busy {
		return false
	}
	if f.now == nil {
		f.now = map[string]struct{}{}
	}
	f.now[key] = struct{}{}
	return true
}

func (f *inFlight) leave(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, key)
}
