package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/budget"
)

func TestRateVisitor(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	limits := budget.Limits(0, 2)
	visit := func() *rates.Visitor {
		t.Helper()
		v, err := b.VisitRates(within(t), limits)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	free := visit() // nobody has made a window, nor the bucket
	if at, err := free.Take(within(t), ""); err != nil || !free.Fresh(at) {
		t.Errorf("without windows: %v", err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := rates.New(within(t), b.JS(), b.State(), limits, 1, nil); err != nil {
		t.Fatal(err)
	}
	// Its own limits are nobody's business: those hold that the workers have set.
	limits = budget.Limits(50, 50)
	v := visit()
	for range 2 {
		if at, err := v.Take(within(t), ""); err != nil || !v.Fresh(at) || v.Fresh(at.Add(-3*time.Second)) {
			t.Errorf("a free call: %v", err)
		}
	}
	var wait *budget.WaitError
	if _, err := v.Take(within(t), ""); !errors.As(err, &wait) || wait.Closed {
		t.Errorf("a window that is used up: %v", err)
	}
	if o, err := b.Overview(within(t), budget.Limits(0, 2)); err != nil || o.Budget[1].Remaining != 0 || time.Until(o.NextCall) < 59*time.Minute || o.Short != "hour" {
		t.Errorf("%v, %+v", err, o)
	}
	if used, err := b.Usage(within(t), budget.Limits(0, 2)); err != nil || used[0].Limit != 0 || used[1].Limit != 2 || len(used[1].Grants) != 2 {
		t.Errorf("%v, %+v", err, used)
	}
	if err := v.Close(within(t), time.Hour); err != nil {
		t.Fatal(err)
	}
	if d, err := visit().ClosedFor(within(t)); err != nil || d < 59*time.Minute || d > time.Hour {
		t.Errorf("closed for %s, %v", d, err)
	}
	if _, err := visit().Take(within(t), ""); !errors.As(err, &wait) || !wait.Closed {
		t.Errorf("closed: %v", err)
	}
}

// TestQuotaIsWhatTheWorkersAgreedOn: until a worker has made a window, what is configured here.
func TestQuotaIsWhatTheWorkersAgreedOn(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	expect := func(configured []budget.Window, want ...budget.WindowStatus) {
		t.Helper()
		o, err := b.Overview(within(t), configured)
		for i, w := range o.Budget {
			if counts := w.Remaining < w.Limit; counts != !w.FreesAt.IsZero() || w.FullAt.Before(w.FreesAt) || counts && time.Until(w.FreesAt) < 50*time.Second {
				t.Errorf("of %d calls of a %s the next comes free at %s, the last at %s", w.Limit-w.Remaining, w.Window, w.FreesAt, w.FullAt)
			}
			o.Budget[i].FreesAt, o.Budget[i].FullAt = time.Time{}, time.Time{}
		}
		if diff := cmp.Diff(want, o.Budget); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	expect(budget.Limits(9, 0), budget.WindowStatus{Window: "minute", Limit: 9, Remaining: 9}, budget.WindowStatus{Window: "hour"})
	replicas := b.NewReplicas("one")
	store, err := rates.New(within(t), b.JS(), b.State(), budget.Limits(5, 100), 1, replicas)
	if err != nil {
		t.Fatal(err)
	}
	for _, window := range []string{"minute", "minute", "hour", "hour"} {
		if ok, err := store.Take(within(t), window, nil); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	expect(budget.Limits(9, 100), budget.WindowStatus{Window: "minute", Limit: 5, Remaining: 3}, budget.WindowStatus{Window: "hour", Limit: 100, Remaining: 98})

	// What a lost stream had granted is not known: nothing is left until it has aged out.
	if err := b.JS().DeleteStream(within(t), rates.StreamName("hour")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- store.Run(ctx) }()
	if _, err := store.Look(within(t), "hour"); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-running; err != nil {
		t.Error(err)
	}
	expect(budget.Limits(9, 100), budget.WindowStatus{Window: "minute", Limit: 5, Remaining: 3}, budget.WindowStatus{Window: "hour", Limit: 100})
	o, err := b.Overview(within(t), budget.Limits(9, 100))
	if d := time.Until(o.NextCall); err != nil || o.Short != "hour" || d < 65*time.Minute || d > 67*time.Minute {
		t.Errorf("the next call is free in %v, for the %s, %v", d, o.Short, err)
	}
	if _, err := visitorOf(t, b).Take(within(t), ""); !errors.As(err, new(*budget.WaitError)) {
		t.Errorf("a command took a call: %v", err)
	}
}

func visitorOf(t *testing.T, b *broker.Broker) *rates.Visitor {
	t.Helper()
	v, err := b.VisitRates(within(t), budget.Limits(9, 100))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
