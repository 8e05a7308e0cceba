package budget

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errStore = errors.New("store down")

// memory is a Store in this process, with a clock of its own that can jump and with faults.
type memory struct {
	mu           sync.Mutex
	windows      map[string]Window
	grants       map[string][]time.Time
	jump         time.Duration // the store's clock against this process's
	since, until time.Time
	unknown      bool
	taken        map[string]int // Takes carried out
	others       int
	fault        func(window string) (carriedOut bool, err error) // nil: none
	lookFault    error
	delay        time.Duration               // of every Look
	slow         map[string][2]time.Duration // of every Take of a window: on the way to the store, and back
	late         time.Duration               // in letting go of a grant
}

func newMemory(windows []Window) *memory {
	m := &memory{windows: map[string]Window{}, grants: map[string][]time.Time{}, taken: map[string]int{}}
	for _, w := range windows {
		m.windows[w.Name] = w
	}
	return m
}

func (m *memory) prune(name string) (Window, time.Time) {
	w, now := m.windows[name], time.Now().Add(m.jump)
	for len(m.grants[name]) > 0 && now.Sub(m.grants[name][0]) >= w.Span()+m.late {
		m.grants[name] = m.grants[name][1:]
	}
	return w, now
}

func (m *memory) Look(ctx context.Context, name string) (State, error) {
	select {
	case <-ctx.Done():
		return State{}, ctx.Err()
	case <-time.After(m.delay):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lookFault != nil {
		return State{}, m.lookFault
	}
	w, now := m.prune(name)
	s := State{Limit: w.Limit, Left: w.Limit - len(m.grants[name]), Last: uint64(m.taken[name]), Others: m.others}
	if len(m.grants[name]) > 0 {
		s.NextIn = min(m.grants[name][0].Add(w.Span()).Sub(now), w.Span())
	}
	return s, nil
}

func (m *memory) Take(_ context.Context, name string, last *uint64) (bool, error) {
	time.Sleep(m.slow[name][0])
	defer time.Sleep(m.slow[name][1])
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.fault != nil {
		var carriedOut bool
		if carriedOut, err = m.fault(name); err != nil && !carriedOut {
			return false, err
		}
	}
	w, now := m.prune(name)
	if w.Limit > 0 && len(m.grants[name]) >= w.Limit {
		return false, err
	}
	m.taken[name]++
	if w.Limit > 0 {
		m.grants[name] = append(m.grants[name], now)
	}
	return err == nil, err
}

func (m *memory) Close(_ context.Context, d time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if until := time.Now().Add(d); until.After(m.until) {
		m.since, m.until = time.Now(), until
	}
	return nil
}

func (m *memory) Closed() (since, until time.Time, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.since, m.until, !m.unknown
}

func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}
