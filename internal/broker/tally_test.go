package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// TestTallyCountsOutcomesAlone: what anybody else puts into the stream of results makes no outcomes of its own, which /status
// and the page would show.
func TestTallyCountsOutcomesAlone(t *testing.T) {
	p := newTeller(t, 0)
	p.tell(t, "r-1", time.Now())
	for n := range 3 {
		_, err := p.broker.JS().PublishMsg(within(t), &nats.Msg{Subject: "remediation.results", Data: []byte("{}"), Header: nats.Header{
			"Nats-Msg-Id": {fmt.Sprint("x", n, ":final:1")}, "ce-type": {fmt.Sprint("remediation.unrestrict.madeUp\u202e", n)},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	tally := p.broker.NewTally(0)
	for range 2 {
		p.counts(t, tally, 1)
	}
}

// counts holds a tally against the number of results that succeeded.
func (p teller) counts(t *testing.T, tally *broker.Tally, want int) {
	t.Helper()
	got, byMinute, current, err := tally.Counts(within(t))
	wanted := map[string]int{}
	if want > 0 {
		wanted[message.Succeeded] = want
	}
	if diff := cmp.Diff(wanted, got); diff != "" || err != nil || !current {
		t.Errorf("current %t, %v, %s", current, err, diff)
	}
	sum := 0
	for _, counts := range byMinute {
		sum += counts[message.Succeeded]
	}
	if sum != want {
		t.Errorf("by the minute there are %d", sum)
	}
}

// publish puts many results into the stream, as the Publisher does.
func (p teller) publish(t testing.TB, prefix string, n int) {
	t.Helper()
	for i := range n {
		header, body, err := result(fmt.Sprint(prefix, i)).Render("urn:test", message.Trace{}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.broker.JS().PublishMsgAsync(&nats.Msg{Subject: "remediation.results", Header: nats.Header(header), Data: body}, jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-p.broker.JS().PublishAsyncComplete():
	case <-time.After(time.Minute):
		t.Fatal("not published within a minute")
	}
}

// keep runs a Tally until it has written its record, which it does as it ends too.
func (p teller) keep(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.broker.NewTally(0).Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// follow runs a Tally until it has recorded so many messages, and until end is called.
func (p teller) follow(t testing.TB, n int) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.broker.NewTally(0).Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	p.recorded(t, n)
	return end
}

// recorded waits until a record says that so many messages were read.
func (p teller) recorded(t testing.TB, n int) {
	t.Helper()
	watch, err := p.state(t).Watch(t.Context(), "tally.*")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Stop() }()
	for e := range watch.Updates() {
		if e != nil && strings.Contains(string(e.Value()), fmt.Sprintf(`"next":%d,`, n+1)) {
			return
		}
	}
	t.Fatal("the watch ended")
}

// state is UNRESTRICT_STATE as the client library has it.
func (p teller) state(t testing.TB) jetstream.KeyValue {
	t.Helper()
	kv, err := p.broker.JS().KeyValue(t.Context(), broker.StateBucket)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// tallyKey is the one key of UNRESTRICT_STATE that is a tally's.
func (p teller) tallyKey(t *testing.T) string {
	t.Helper()
	keys, err := p.state(t).ListKeys(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for key := range keys.Keys() {
		if strings.HasPrefix(key, "tally.") {
			found = append(found, key)
		}
	}
	if len(found) != 1 {
		t.Fatalf("keys of tallies: %q", found)
	}
	return found[0]
}

// reads counts the results that are read from now on: direct reads are answered on inboxes, which the connection can hear.
func (p teller) reads(t *testing.T) func() int {
	t.Helper()
	heard := make(chan *nats.Msg, 1<<16)
	sub, err := p.broker.Conn().ChanSubscribe("_INBOX.>", heard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return func() (n int) {
		if err := p.broker.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			select {
			case m := <-heard:
				if m.Header.Get("Nats-Stream") == "REMEDIATION_RESULTS" {
					n++
				}
			default:
				return n
			}
		}
	}
}

// TestTallyGoesOnFromItsRecord: whoever asks first, after a start or by command, reads what came since the record and not the
// whole day.
func TestTallyGoesOnFromItsRecord(t *testing.T) {
	p := newTeller(t, 0)
	p.publish(t, "a", 600)
	read := p.reads(t)
	p.counts(t, p.broker.NewTally(0), 600)
	if n := read(); n != 600 {
		t.Errorf("without a record %d results were read", n)
	}
	p.keep(t)
	read()
	p.publish(t, "b", 3)
	p.counts(t, p.broker.NewTally(0), 603)
	if n := read(); n != 3 {
		t.Errorf("with a record %d results were read", n)
	}
	p.keep(t)
	read()
	tally := p.broker.NewTally(0)
	p.counts(t, tally, 603)
	p.counts(t, tally, 603)
	if n := read(); n != 0 {
		t.Errorf("with a record that is up to date %d results were read", n)
	}
}

// TestTallyRunsBehindItsResults: the record follows what this process publishes, so that a killed one leaves little to read.
func TestTallyRunsBehindItsResults(t *testing.T) {
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		p := newTeller(t, 0)
		end := p.follow(t, 0)
		began := time.Now()
		p.tell(t, "r-1", time.Now())
		p.recorded(t, 1)
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("recorded after %v", took)
		}
		end()
	})
}

// emptyPools takes the timers away that nats.go keeps in a sync.Pool: none may come into a bubble or leave it. Two
// collections empty every pool.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

// TestTallyOfAnotherStream: results that were deleted with their stream count no more, whether it is noticed at a start or not.
func TestTallyOfAnotherStream(t *testing.T) {
	p := newTeller(t, 0)
	p.publish(t, "a", 20)
	tally := p.broker.NewTally(0)
	p.counts(t, tally, 20)
	p.keep(t)
	if err := p.broker.JS().DeleteStream(within(t), "REMEDIATION_RESULTS"); err != nil {
		t.Fatal(err)
	}
	if err := p.broker.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	p.publish(t, "b", 30) // more than before: the sequence alone would not show it
	p.counts(t, tally, 30)
	p.counts(t, p.broker.NewTally(0), 30)
	p.keep(t)
	p.counts(t, p.broker.NewTally(0), 30)
}

// TestTallyDoesNotBelieveAnyRecord: a record that makes no sense is as good as none, and the next one is written over it.
func TestTallyDoesNotBelieveAnyRecord(t *testing.T) {
	p := newTeller(t, 0)
	p.publish(t, "a", 20)
	p.keep(t)
	key, good := p.tallyKey(t), map[string]any{}
	entry, err := p.state(t).Get(within(t), key)
	if err != nil || json.Unmarshal(entry.Value(), &good) != nil {
		t.Fatal(err)
	}
	minute := fmt.Sprint(time.Now().Unix() / 60)
	for name, with := range map[string]map[string]any{
		"an outcome there is none":  {"counts": map[string]any{minute: map[string]int{"madeUp": 1}}},
		"fewer than none":           {"counts": map[string]any{minute: map[string]int{"failed": -1}}},
		"more than the stream had":  {"counts": map[string]any{minute: map[string]int{"failed": 7, "rejected": 14}}},
		"from times to come":        {"counts": map[string]any{fmt.Sprint(time.Now().Add(48*time.Hour).Unix() / 60): map[string]int{"failed": 1}}},
		"from long ago":             {"counts": map[string]any{"1": map[string]int{"failed": 1}}},
		"no time":                   {"counts": map[string]any{"noon": map[string]int{"failed": 1}}},
		"of what is not there yet":  {"next": 23, "counts": map[string]any{minute: map[string]int{"failed": 22}}},
		"of nothing":                {"next": 0},
		"of another stream":         {"stream": "2026-01-01T00:00:00Z"},
		"of no stream":              {"stream": nil},
		"no list of counts at all":  {"counts": "many"},
		"as much as a stream holds": {"counts": map[string]any{minute: map[string]int{"failed": 1 << 62, "rejected": 1 << 62}}},
		"long":                      {"more": strings.Repeat("x", 1<<18)},
	} {
		t.Run(name, func(t *testing.T) {
			bad := map[string]any{}
			maps.Copy(bad, good)
			maps.Copy(bad, with)
			value, err := json.Marshal(bad)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.state(t).Put(within(t), key, value); err != nil {
				t.Fatal(err)
			}
			p.counts(t, p.broker.NewTally(0), 20)
			p.keep(t)
			mended, err := p.state(t).Get(within(t), key)
			if err != nil || string(mended.Value()) != string(entry.Value()) {
				t.Errorf("the record is %.200s, %v", mended.Value(), err)
			}
		})
	}
	for _, lost := range []func() error{
		func() error { return p.state(t).Delete(within(t), key) },
		func() error { return p.state(t).Purge(within(t), key) },
		func() error { _, err := p.state(t).Put(within(t), key, []byte("\xff{")); return err },
	} {
		if err := lost(); err != nil {
			t.Fatal(err)
		}
		p.counts(t, p.broker.NewTally(0), 20)
		p.keep(t)
		if back, err := p.state(t).Get(within(t), key); err != nil || string(back.Value()) != string(entry.Value()) {
			t.Errorf("the record was not written again: %v", err)
		}
	}
}

// TestTallyThatIsFurtherWins: a replica that comes late with what it counted does not take back what another one recorded.
func TestTallyThatIsFurtherWins(t *testing.T) {
	p := newTeller(t, 0)
	p.publish(t, "a", 5)
	endLate := p.follow(t, 5)
	p.publish(t, "b", 5)
	p.keep(t) // another process, by compare-and-set over the first one's
	p.publish(t, "c", 5)
	p.keep(t)
	endLate()
	entry, err := p.state(t).Get(within(t), p.tallyKey(t))
	if err != nil || !strings.Contains(string(entry.Value()), `"next":16`) {
		t.Errorf("%s, %v", entry.Value(), err)
	}
	p.counts(t, p.broker.NewTally(0), 15)
}

// TestTallyAnswersInTime: with what was counted so far, and says that it is not all.
func TestTallyAnswersInTime(t *testing.T) {
	p := newTeller(t, 0)
	p.publish(t, "a", 20)
	if got, _, current, err := p.broker.NewTally(time.Nanosecond).Counts(within(t)); err != nil || current || len(got) > 0 {
		t.Errorf("%v, current %t, %v", got, current, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := p.broker.NewTally(0).Counts(ctx); err == nil {
		t.Error("whoever was interrupted is told nothing of it")
	}
}

// BenchmarkTallyFirstAnswer is `worker status` with a day of results in the stream.
func BenchmarkTallyFirstAnswer(b *testing.B) {
	for _, recorded := range []bool{false, true} {
		b.Run(fmt.Sprintf("recorded=%t", recorded), func(b *testing.B) {
			p := benchTeller(b)
			p.publish(b, "r", 90_000)
			if recorded {
				p.follow(b, 90_000)
			}
			b.ResetTimer()
			for b.Loop() {
				if got, _, _, err := p.broker.NewTally(0).Counts(b.Context()); err != nil || got[message.Succeeded] != 90_000 {
					b.Fatal(got, err)
				}
			}
		})
	}
}

func benchTeller(b *testing.B) teller {
	b.Helper()
	conn, err := broker.Open(b.Context(), broker.Config{DataDir: b.TempDir(), SyncInterval: true, Provision: true}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	if err := conn.Provision(b.Context()); err != nil {
		b.Fatal(err)
	}
	stream, err := conn.JS().Stream(b.Context(), "REMEDIATION_RESULTS")
	if err != nil {
		b.Fatal(err)
	}
	return teller{conn.NewPublisher(), conn, stream}
}
