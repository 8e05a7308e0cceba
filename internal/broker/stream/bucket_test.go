package stream

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
)

// inBubble runs a test in fake time against a broker with one bucket.
func inBubble(t *testing.T, test func(t *testing.T, js jetstream.JetStream, b *Bucket, create func())) {
	t.Helper()
	dir := t.TempDir()
	// nats.go keeps timers in a sync.Pool, and a timer must not leave its bubble: two collections empty every pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		srv, err := server.NewServer(&server.Options{ServerName: "bucket", JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true, DontListen: true})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		if !srv.ReadyForConnections(20 * time.Second) {
			t.Fatal("the broker is not ready")
		}
		nc, err := nats.Connect("", nats.InProcessServer(srv))
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		b := NewBucket(js, "B")
		test(t, js, b, func() {
			time.Sleep(time.Millisecond) // no two are created at once
			if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "B", Storage: jetstream.MemoryStorage, LimitMarkerTTL: time.Hour}); err != nil {
				t.Fatal(err)
			}
		})
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
	})
}

func (b *Bucket) mustSave(t *testing.T, key string) uint64 {
	t.Helper()
	revision, err := b.Save(t.Context(), ledger.Write{Key: key, Value: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func (b *Bucket) heard(t *testing.T) {
	t.Helper()
	info, err := b.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.SetCreated(info.Created, info.State.LastSeq)
}

// A bucket that was made anew counts from 1 again. A watch that went on behind the revisions of the one before would miss
// what the new one begins with: it ends, and the next one has everything.
func TestWatchOfABucketMadeAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, js jetstream.JetStream, b *Bucket, create func()) {
		create()
		b.heard(t)
		for range 5 {
			for _, key := range []string{"a", "b"} {
				if err := b.Put(t.Context(), key, []byte("old"), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		watch := func(ctx context.Context) (keys func() []string, ended chan error) {
			var seen []string
			ended = make(chan error, 1)
			go func() {
				ended <- b.Watch(ctx, []string{">"}, func() {}, func(key string, _ ledger.Record) { seen = append(seen, key) })
			}()
			synctest.Wait()
			return func() []string { synctest.Wait(); return seen }, ended
		}
		old, ended := watch(t.Context())
		if got := old(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("seen %q", got)
		}
		if err := js.DeleteStream(t.Context(), "KV_B"); err != nil {
			t.Fatal(err)
		}
		create()
		if err := b.Put(t.Context(), "first", []byte("new"), 0); err != nil { // before anybody has heard
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		b.heard(t)
		if err := <-ended; !errors.Is(err, ErrRecreated) {
			t.Errorf("the watch ended with %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		anew, ended := watch(ctx)
		if err := b.Put(t.Context(), "second", []byte("new"), 0); err != nil {
			t.Fatal(err)
		}
		if got := anew(); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("seen %q", got)
		}
		time.Sleep(time.Minute)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A server that was cut off from its power can have lost what it had acknowledged: sequences go back, and it is still the same
// bucket. Writes go on at once, and a watch begins anew.
func TestBucketRolledBack(t *testing.T) {
	inBubble(t, func(t *testing.T, _ jetstream.JetStream, b *Bucket, create func()) {
		create()
		b.heard(t)
		b.mustSave(t, "a")
		b.mu.Lock()
		b.last, b.sequence = 100, 100 // what was lost
		b.mu.Unlock()
		b.mustSave(t, "b")
		b.mustSave(t, "c")
		ended := make(chan error, 1)
		go func() { ended <- b.Watch(t.Context(), []string{">"}, func() {}, func(string, ledger.Record) {}) }()
		synctest.Wait()
		b.heard(t)
		if err := <-ended; !errors.Is(err, ErrRecreated) {
			t.Error(err)
		}
		b.mustSave(t, "d")
	})
}

// A watch whose consumer is lost, and can't be made again, ends, though the client library says nothing of it. One that shows
// everything goes on.
func TestSilentWatchEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, js jetstream.JetStream, b *Bucket, _ func()) {
		s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: "KV_B", Subjects: []string{"$KV.B.>"}, MaxMsgsPerSubject: 1, Storage: jetstream.MemoryStorage, AllowRollup: true, AllowDirect: true, MaxConsumers: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		b.mustSave(t, "other.a")
		b.mustSave(t, "mine.a")
		var shown []string
		ended := make(chan error, 1)
		go func() {
			ended <- b.Watch(t.Context(), []string{"mine.>"}, func() {}, func(key string, _ ledger.Record) { shown = append(shown, key) })
		}()
		time.Sleep(time.Minute)
		b.mustSave(t, "mine.b")
		b.mustSave(t, "other.b")
		time.Sleep(time.Minute)
		select {
		case err := <-ended:
			t.Fatalf("a watch that shows everything ended with %v", err)
		default:
		}
		for name := range s.ConsumerNames(t.Context()).Name() {
			if err := s.DeleteConsumer(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "other"}); err != nil { // which leaves no room for another, and stays
			t.Fatal(err)
		}
		b.mustSave(t, "mine.c")
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "has not shown for 8s that there is revision 5") && !strings.Contains(err.Error(), "the watch of the bucket B ended") {
				t.Errorf("the watch ended with %v", err) // the library itself gives up after this error, but not where it is denied
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the watch goes on, and shows nothing")
		}
		if want := []string{"mine.a", "mine.b"}; !slices.Equal(shown, want) {
			t.Errorf("it showed %q, want %q", shown, want)
		}
	})
}

// A write into a bucket that somebody has made in another's place is taken back and is an error, until it is known that it
// is another one.
func TestSaveIntoABucketMadeAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, js jetstream.JetStream, b *Bucket, create func()) {
		create()
		b.heard(t)
		for _, key := range []string{"a", "b", "c"} {
			b.mustSave(t, key)
		}
		if err := js.DeleteStream(t.Context(), "KV_B"); err != nil {
			t.Fatal(err)
		}
		create()
		for range 3 {
			if revision, err := b.Save(t.Context(), ledger.Write{Key: "d", Value: []byte("d")}); !errors.Is(err, ErrRecreated) {
				t.Errorf("saved at %d: %v", revision, err)
			}
			if r, err := b.Load(t.Context(), "d"); err != nil || r.Value != nil {
				t.Errorf("%s is left, %v", r.Value, err)
			}
			if err := js.DeleteStream(t.Context(), "KV_B"); err != nil {
				t.Fatal(err)
			}
			create()
		}
		one, two := b.SaveBoth(t.Context(), ledger.Write{Key: "e", Value: []byte("e")}, ledger.Write{Key: "f", Value: []byte("f")})
		if !errors.Is(one.Err, ErrRecreated) || !errors.Is(two.Err, ErrRecreated) {
			t.Errorf("%v, %v", one.Err, two.Err)
		}
		b.heard(t)
		b.mustSave(t, "g")
	})
}

// What was decided before a bucket was made anew is not written into the new one, however soon that is known.
func TestPinnedBucket(t *testing.T) {
	inBubble(t, func(t *testing.T, js jetstream.JetStream, b *Bucket, create func()) {
		create()
		b.heard(t)
		before := b.Pin()
		if _, err := before.Save(t.Context(), ledger.Write{Key: "a", Value: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(t.Context(), "KV_B"); err != nil {
			t.Fatal(err)
		}
		create()
		b.heard(t)
		if _, err := before.Save(t.Context(), ledger.Write{Key: "b", Value: []byte("b")}); !errors.Is(err, ErrRecreated) {
			t.Errorf("what was decided before is written: %v", err)
		}
		if _, err := b.Pin().Save(t.Context(), ledger.Write{Key: "b", Value: []byte("b")}); err != nil {
			t.Error(err)
		}
	})
}
