package broker

import (
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

// NewSampler returns a core that, of equal messages in an interval of every, writes the first ones, as many as first says, and
// then each thereafter-th; 0: no more. It works like zap's sampler, without its table of half a megabyte: few messages repeat.
func NewSampler(core zapcore.Core, every time.Duration, first, thereafter int) zapcore.Core {
	return sampler{core, &repeated{every: every, first: first, thereafter: thereafter, counts: map[string]count{}}}
}

type sampler struct {
	zapcore.Core
	*repeated
}

// With is called by zap. Messages that differ only in fields count as equal.
func (s sampler) With(fields []zapcore.Field) zapcore.Core {
	return sampler{s.Core.With(fields), s.repeated}
}

// Check is called by zap.
func (s sampler) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !s.Enabled(e.Level) || !s.due(e.Message, e.Time) {
		return ce
	}
	return s.Core.Check(e, ce)
}

// repeated counts messages.
type repeated struct {
	every             time.Duration
	first, thereafter int

	mu     sync.Mutex
	counts map[string]count
}

type count struct {
	since time.Time
	n     int
}

// mostRepeated bounds the messages that are counted: those of the embedded server may contain any name.
const mostRepeated = 500

func (r *repeated) due(message string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, known := r.counts[message]
	if !known && len(r.counts) >= mostRepeated {
		clear(r.counts)
	}
	if now.Sub(c.since) >= r.every {
		c = count{since: now}
	}
	c.n++
	r.counts[message] = c
	return c.n <= r.first || r.thereafter > 0 && (c.n-r.first)%r.thereafter == 0
}
