package budget

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// asked counts how often a store is looked at.
type asked struct {
	*memory
	times atomic.Int64
}

func (a *asked) Look(ctx context.Context, name string) (State, error) {
	a.times.Add(1)
	return a.memory.Look(ctx, name)
}

// A process at rest asks seldom, also in the hour after its last call, and often while others take calls or none is left.
func TestRunAsksSeldomWhileNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		windows := Limits(0, 8)
		store := &asked{memory: newMemory(windows)}
		b := New(store, windows, zap.NewNop(), nil)
		mustTake(t, b, "urgent", 1)
		go func() { _ = b.Run(t.Context()) }()
		looks := func(what string, least, most int64, meanwhile func()) {
			t.Helper()
			before := store.times.Load()
			for range 6 {
				meanwhile()
				time.Sleep(time.Minute)
			}
			if n := (store.times.Load() - before) / int64(len(b.windows)); n < least || n > most {
				t.Errorf("%s: asked %d times in 6 minutes", what, n)
			}
		}
		looks("nobody takes", 10, 14, func() {})
		looks("another replica takes one a minute", 15, 40, func() { _, _ = store.Take(t.Context(), "hour", nil) })
		mustTake(t, b, "urgent", 1)
		looks("none is left", 60, 74, func() {})
	})
}
