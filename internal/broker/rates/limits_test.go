package rates

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/budget"
)

// want expects exactly n calls now, and then a wait of about d: until a span of the API's is over, and StartLimit more.
func (r *replica) want(n int, d time.Duration) {
	r.tb.Helper()
	got, wait := r.exhaust()
	if off := wait.Wait() - d - budget.StartLimit; got != n || wait.Closed || off < -time.Second || off > time.Second {
		r.tb.Errorf("%d calls and then %v, want %d and then %v", got, wait, n, d+budget.StartLimit)
	}
}

func TestRateLimitRaised(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.replica(budget.Limits(30, 0))
		a.want(30, time.Minute)
		a.stop()
		time.Sleep(2 * time.Second) // for its word to expire
		b := w.replica(budget.Limits(50, 0))
		b.want(20, 58*time.Second)
		b.kill()
		c := w.replica(budget.Limits(60, 0))
		c.want(0, 58*time.Second) // a dead replica's limit holds a little longer
		time.Sleep(20 * time.Second)
		c.want(10, 38*time.Second)
	})
}

// Had lowering deleted grants, raising again would let too many calls through.
func TestRateLimitLoweredForgetsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.replica(budget.Limits(50, 0))
		a.take(40)
		a.stop()
		time.Sleep(5 * time.Second)
		b := w.replica(budget.Limits(30, 0))
		b.want(0, 55*time.Second)
		b.stop()
		time.Sleep(5 * time.Second)
		c := w.replica(budget.Limits(50, 0))
		c.want(10, 50*time.Second)
	})
}

func TestRateLimitLowered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.replica(budget.Limits(50, 0))
		for range 40 { // one a second, the oldest 40 s ago
			a.take(1)
			time.Sleep(time.Second)
		}
		a.stop()
		time.Sleep(2 * time.Second)
		b := w.replica(budget.Limits(30, 0))
		b.want(0, 29*time.Second) // when the 11th has aged out
		time.Sleep(29 * time.Second)
		for i := range 5 { // from here on one for one
			b.take(1)
			if n, _ := b.store.Look(t.Context(), "minute"); n.Left > 1 || n.Limit != 30 {
				t.Fatalf("after %d calls: %+v", i+1, n)
			}
		}
		info, err := w.connect().Stream(t.Context(), "UNRESTRICT_RATE_MINUTE")
		if err != nil || info.CachedInfo().Config.MaxMsgsPerSubject != 30 {
			t.Errorf("the stream's limit is not the new one: %v", err)
		}
	})
}

func TestRateSmallestLimitHolds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		none, many, few := w.replica(budget.Limits(0, 0)), w.replica(budget.Limits(50, 0)), w.replica(budget.Limits(20, 0))
		few.take(1)
		synctest.Wait() // its word is out, and has been heard
		none.take(4)
		many.want(15, time.Minute)
		none.want(0, time.Minute)
		few.want(0, time.Minute)
		few.kill()
		time.Sleep(20 * time.Second)
		many.want(30, 40*time.Second)
		many.stop()
		time.Sleep(2 * time.Second)
		none.take(100)
	})
}

// Calls without a limit are unknown to the window, so a limit begins with a full one: here until
// 1.1 windows and twice StartLimit after the last mark.
func TestRateLimitIntroduced(t *testing.T) {
	const minute, hour = 66*time.Second + budget.StartLimit, 66*time.Minute + budget.StartLimit
	t.Run("live", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			a := w.replica(budget.Limits(0, 0))
			a.take(3)
			b := w.replica(budget.Limits(5, 100))
			b.want(0, hour)
			synctest.Wait() // a has heard of b's limits
			a.want(0, hour)
			time.Sleep(hour + budget.StartLimit + time.Second)
			b.take(3)
			a.want(2, time.Minute)
		})
	})
	t.Run("by a restart, twice", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			for range 2 {
				a := w.replica(budget.Limits(0, 0))
				a.take(1)
				time.Sleep(3 * time.Second) // the mark is still good
				a.take(1)
				a.stop()
				b := w.replica(budget.Limits(5, 0))
				b.want(0, minute-3*time.Second)
				time.Sleep(minute + budget.StartLimit)
				b.want(5, time.Minute)
				b.stop()
				time.Sleep(2 * time.Second)
			}
		})
	})
	t.Run("long after the last call", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			a := w.replica(budget.Limits(0, 0))
			for range 10 { // more than a window
				a.take(1)
				time.Sleep(10 * time.Second)
			}
			b := w.replica(budget.Limits(5, 0))
			b.want(0, minute-10*time.Second)
			b.stop()
			time.Sleep(2 * time.Second)
			a.take(1)
			time.Sleep(minute + budget.StartLimit)
			w.replica(budget.Limits(5, 0)).want(5, time.Minute)
		})
	})
	t.Run("the mark can't be written", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			for _, lost := range []bool{false, true} {
				js := w.connect()
				bucket := &faultyBucket{State: w.bucket(js), lost: lost}
				a := w.replicaWith(js, bucket, budget.Limits(0, 0))
				bucket.failsPut.Store(true)
				if _, err := a.Take(t.Context(), "urgent"); err == nil {
					t.Error("a call that nobody knows of")
				}
				bucket.failsPut.Store(false)
				a.take(1)
			}
		})
	})
}

func TestRateStreamRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.replica(budget.Limits(5, 0))
		r.take(2)
		if err := r.js.DeleteStream(t.Context(), "UNRESTRICT_RATE_MINUTE"); err != nil {
			t.Fatal(err)
		}
		r.want(0, 66*time.Second+budget.StartLimit)
		time.Sleep(66*time.Second + 2*budget.StartLimit)
		r.want(5, time.Minute)
	})
}

// What a stream had granted is not known any more where another one is in its place: made by somebody, or anew after it was
// lost while no worker ran. That is said, and ends. The first start is none, nor is one after a version that left no word.
func TestRateStreamReplaced(t *testing.T) {
	replace := func(t *testing.T, js jetstream.JetStream) {
		s, err := js.Stream(t.Context(), "UNRESTRICT_RATE_MINUTE")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := js.DeleteStream(t.Context(), "UNRESTRICT_RATE_MINUTE"); err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateStream(t.Context(), s.CachedInfo().Config); err != nil {
			t.Fatal(err)
		}
	}
	mark := 66*time.Second + budget.StartLimit
	t.Run("under a worker", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			r, other := w.replica(budget.Limits(5, 0)), w.replica(budget.Limits(5, 0))
			r.take(2)
			if until, window := r.store.UnknownUntil(); !until.IsZero() {
				t.Errorf("%s is not known until %v", window, until)
			}
			replace(t, r.js)
			r.want(0, mark)
			other.want(0, mark)
			if until, window := other.store.UnknownUntil(); window != "minute" || (time.Until(until)-mark-budget.StartLimit).Abs() > time.Second {
				t.Errorf("%s is not known until %v", window, until)
			}
			time.Sleep(mark + budget.StartLimit)
			r.want(5, time.Minute)
			if until, _ := other.store.UnknownUntil(); !until.IsZero() {
				t.Errorf("not known until %v", until)
			}
		})
	})
	t.Run("while none ran", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			r := w.replica(budget.Limits(5, 0))
			r.take(2)
			r.stop()
			replace(t, r.js)
			w.replica(budget.Limits(5, 0)).want(0, mark)
		})
	})
	t.Run("left by a version that has no word of it", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			r := w.replica(budget.Limits(5, 0))
			r.take(2)
			r.stop()
			if err := r.store.state.(*stream.Bucket).Purge(t.Context(), "rate.stream.minute"); err != nil {
				t.Fatal(err)
			}
			w.replica(budget.Limits(5, 0)).want(3, time.Minute)
		})
	})
}

// The stream is there with other settings: they are corrected, and no grant is lost.
func TestRateStreamCorrected(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		js, want := w.connect(), StreamConfig(budget.Limits(9, 0)[0], 1)
		other := want
		other.Storage, other.MaxAge, other.Description, other.Duplicates = jetstream.MemoryStorage, time.Hour, "mine", time.Minute
		other.MaxMsgsPerSubject, other.Discard, other.DiscardNewPerSubject = 4, jetstream.DiscardOld, false
		if _, err := js.CreateStream(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "unrestrict.rate.minute", nil); err != nil {
			t.Fatal(err)
		}
		r := w.replica(budget.Limits(9, 0))
		r.want(8, time.Minute)
		stream, err := js.Stream(t.Context(), want.Name)
		if err != nil {
			t.Fatal(err)
		}
		want.Storage, want.Description = other.Storage, other.Description
		got := stream.CachedInfo().Config
		for _, pair := range [][2]any{
			{got.MaxAge, want.MaxAge},
			{got.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
			{got.Discard, want.Discard},
			{got.DiscardNewPerSubject, true},
			{got.Duplicates, want.Duplicates},
			{got.AllowDirect, true},
			{got.Subjects, want.Subjects},
			{got.Description, want.Description},
		} {
			if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
				t.Errorf("setting (-want +got):\n%s", diff)
			}
		}
	})
}

func TestRateRemaining(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.replica(budget.Limits(5, 100))
		r.take(2)
		if got, err := r.Remaining(t.Context()); err != nil || len(got) != 2 || got[0].Remaining != 3 || got[1].Remaining != 98 {
			t.Errorf("Remaining: %+v, %v", got, err)
		}
	})
}
