package broker_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"example.com/unrestrict-worker/internal/broker"
)

// TestSamplerIsAsZaps is zap's own sampler's behaviour, at a rate where they can be told from no sampler and from each other.
func TestSamplerIsAsZaps(t *testing.T) {
	written := func(wrap func(zapcore.Core) zapcore.Core) (all []string) {
		core, logs := observer.New(zapcore.InfoLevel)
		sampled, now := wrap(core), time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
		for i := range 1000 {
			for _, e := range []zapcore.Entry{
				{Level: zapcore.WarnLevel, Message: "often", Time: now},
				{Level: zapcore.DebugLevel, Message: "off", Time: now},
				{Level: zapcore.WarnLevel, Message: fmt.Sprint("now and then ", i%50), Time: now},
			} {
				if ce := sampled.With([]zapcore.Field{{Key: "n", Type: zapcore.Int64Type, Integer: int64(i)}}).Check(e, nil); ce != nil {
					ce.Write()
				}
			}
			now = now.Add(7 * time.Millisecond)
		}
		for _, l := range logs.All() {
			all = append(all, fmt.Sprint(l.Message, l.ContextMap()))
		}
		return all
	}
	for _, thereafter := range []int{0, 20} {
		ours := written(func(c zapcore.Core) zapcore.Core { return broker.NewSampler(c, time.Second, 3, thereafter) })
		zaps := written(func(c zapcore.Core) zapcore.Core { return zapcore.NewSamplerWithOptions(c, time.Second, 3, thereafter) })
		if len(ours) == 0 || fmt.Sprint(ours) != fmt.Sprint(zaps) {
			t.Errorf("thereafter %d: %d lines, zap's %d", thereafter, len(ours), len(zaps))
		}
	}
}

// TestSamplerIsBounded: messages that are never the same are all written, and not all remembered.
func TestSamplerIsBounded(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	sampled := broker.NewSampler(core, time.Hour, 1, 0)
	for i := range 2000 {
		if ce := sampled.Check(zapcore.Entry{Level: zapcore.WarnLevel, Message: fmt.Sprint(i % 1000), Time: time.Now()}, nil); ce != nil {
			ce.Write()
		}
	}
	if n := logs.Len(); n != 2000 {
		t.Errorf("%d of 2,000 were written: more are remembered than should be", n)
	}
}
