package remediation_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// dialect is how a newer version of the worker writes what this one knows: a text that stands in ours, and in theirs.
type dialect struct{ ours, theirs string }

// dialects are the ways in which a value can be newer.
var dialects = map[string]dialect{
	"format": {`{"v":1,`, `{"v":2,"run":{"n":1},`}, // a type has changed: nothing of it can be relied on
	"field":  {`{"v":1,`, `{"v":1,"priority":"high",`},
	"state":  {`"state":"`, `"state":"newly `},
}

func (d dialect) written(v []byte) []byte {
	return bytes.Replace(v, []byte(d.ours), []byte(d.theirs), 1)
}

func (d dialect) read(v []byte) []byte {
	return bytes.Replace(v, []byte(d.theirs), []byte(d.ours), 1)
}

// newerLedger is the ledger as a newer version uses it.
type newerLedger struct {
	*broker.Ledger
	dialect
}

func (l newerLedger) Load(ctx context.Context, key string) (ledger.Record, error) {
	rec, err := l.Ledger.Load(ctx, key)
	rec.Value = l.read(rec.Value)
	return rec, err
}

func (l newerLedger) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	w.Value = l.written(w.Value)
	return l.Ledger.Save(ctx, w)
}

func (l newerLedger) Entries(ctx context.Context, synced func(), fn func(string, ledger.Record)) error {
	return l.Ledger.Entries(ctx, synced, func(key string, rec ledger.Record) {
		rec.Value = l.read(rec.Value)
		fn(key, rec)
	})
}

// startNewer starts a replica of the version that writes the world's dialect.
func (w *world) startNewer() {
	w.t.Helper()
	store := w.broker.NewLedger()
	w.launch(func(r *replica) {
		r.newer = true
		newer := newerLedger{store, w.set.newer}
		r.submitter.Ledger, r.tracker.Ledger, r.tracker.Feed = faultyLedger{newer, r}, faultyLedger{newer, r}, newer
	})
}

// values are all that the ledger holds, with their revisions.
func (w *world) values() map[string]string {
	w.t.Helper()
	watch, err := w.ledgerBucket().WatchAll(w.ctx, jetstream.IgnoreDeletes())
	w.must(err)
	defer func() { _ = watch.Stop() }()
	all := map[string]string{}
	for kv := range watch.Updates() {
		if kv == nil {
			return all
		}
		all[kv.Key()] = fmt.Sprintf("%d %s", kv.Revision(), kv.Value())
	}
	return all
}

// deliveries are how often any message was given out.
func (w *world) deliveries() uint64 {
	w.t.Helper()
	info, err := w.broker.Requests(message.LaneNormal).Info(w.ctx)
	w.must(err)
	return info.Delivered.Consumer
}

// What a newer version has begun an older one leaves alone, in whatever state it finds it: it does not call, publish,
// acknowledge or overwrite. A newer one ends it, and the request was carried out once.
func TestNewerEntriesAreLeftAlone(t *testing.T) {
	status := func(code int, carriedOut bool) *defendersim.Fault {
		return &defendersim.Fault{Op: "unrestrict", Machine: machine(1), Times: 1, Status: code, CarriedOut: carriedOut}
	}
	for name, left := range map[string]struct {
		at    point // where the newer replica dies, once that is done
		api   *defendersim.Fault
		gone  bool // the message was acknowledged
		posts int
		end   string
	}{
		"waiting":   {at: atWaiting, api: status(404, false), posts: 2, end: "succeeded"},
		"called":    {at: atMachine, posts: 1, end: "succeeded"},
		"unknown":   {at: atUnknown, api: status(500, true), posts: 1, end: "succeeded"},
		"submitted": {at: atRecord, posts: 1, end: "succeeded"},
		"followed":  {at: atAck, gone: true, posts: 1, end: "succeeded"},
		"decided":   {at: atDecision, gone: true, posts: 1, end: "succeeded"},
		"told":      {at: atMark, api: status(400, false), posts: 1, end: "rejected BadRequest"},
	} {
		for newer, d := range dialects {
			t.Run(name+"/"+newer, func(t *testing.T) {
				inWorld(t, setup{replicas: -1, newer: d}, func(w *world) {
					if left.api != nil {
						w.api.Inject(*left.api)
					}
					w.faults.inject(fault{at: left.at, done: true, dies: true, times: 1})
					w.startNewer()
					w.ask("r1", 1)
					w.until("the death", time.Minute, func() bool { return w.living() == 0 })
					values, calls, results, given := w.values(), len(w.api.Calls()), len(w.resultsOf("r1")), w.deliveries()
					if left.gone != (len(w.pending()) == 0) {
						t.Fatalf("pending: %v", w.pending())
					}

					old := w.start()
					w.passes(10 * time.Minute) // it is given back every minute
					if now := w.values(); !maps.Equal(now, values) {
						t.Errorf("the ledger has changed from\n%v to\n%v", values, now)
					}
					if n, told := len(w.api.Calls()), len(w.resultsOf("r1")); n != calls || told != results || len(w.letters) != 0 && name != "told" {
						t.Errorf("%d calls, %d results, %d dead letters, before it was %d and %d\n%s", n, told, len(w.letters), calls, results, w.dump())
					}
					if left.gone != (len(w.pending()) == 0) || !left.gone && w.deliveries() < given+8 {
						t.Errorf("pending: %v after %d deliveries", w.pending(), w.deliveries()-given)
					}
					if !old.tracking.Load() || old.tracker.Following() != 0 {
						t.Errorf("it follows %d actions", old.tracker.Following())
					}
					w.ask("r2", 2) // it does its own work
					w.ends("r2")

					w.startNewer()
					old.stop()
					w.settled(5 * time.Minute)
					w.wantPosts(1, left.posts)
					w.wantFinal("r1", left.end)
				})
			})
		}
	}
}

// An entry that is newer only within a member is newer too: the end of such an action is not told by an older version, which
// then no longer follows it.
func TestNewerWithinAMemberIsLetGo(t *testing.T) {
	for _, at := range []point{atAck, atDecision} {
		t.Run(string(at), func(t *testing.T) {
			inWorld(t, setup{replicas: -1, newer: dialect{`"calls":[{`, `"calls":[{"region":"eu",`}}, func(w *world) {
				w.faults.inject(fault{at: at, done: true, dies: true, times: 1})
				w.startNewer()
				w.ask("r1", 1)
				w.until("the death", 10*time.Minute, func() bool { return w.living() == 0 })
				values, results := w.values(), len(w.resultsOf("r1"))
				old := w.start()
				w.passes(10 * time.Minute)
				if now := w.values(); !maps.Equal(now, values) || len(w.resultsOf("r1")) != results {
					t.Errorf("the ledger has changed from\n%v to\n%v, with %d results after %d", values, now, len(w.resultsOf("r1")), results)
				}
				if n := old.tracker.Following(); !old.tracking.Load() || n != 0 {
					t.Errorf("it follows %d actions", n)
				}
				old.stop()
				w.startNewer()
				w.settled(10 * time.Minute)
				w.wantFinal("r1", "succeeded")
			})
		})
	}
}

// Both versions work on one queue, and replicas of both are killed: every request is carried out once.
func TestTwoVersionsShareAQueue(t *testing.T) {
	for newer, d := range dialects {
		t.Run(newer, func(t *testing.T) {
			inWorld(t, setup{newer: d, api: defendersim.Config{Latency: 200 * time.Millisecond}}, func(w *world) {
				w.startNewer()
				for n := range 40 {
					if n%10 == 0 { // whoever comes there first
						w.faults.inject(fault{at: []point{atIntent, atMachine, atRecord, atSubmitted}[n/10], done: true, dies: true, times: 1})
					}
					w.ask(fmt.Sprint("r", n), n/2) // two for one machine
					w.passes(time.Second)
					if n%10 == 5 {
						w.start()
						w.startNewer()
					}
				}
				w.passes(3 * time.Minute)
				for _, r := range w.replicas {
					if !r.newer {
						r.stop()
					}
				}
				w.startNewer()
				w.settled(time.Hour)
				for n := range 40 {
					w.wantFinal(fmt.Sprint("r", n), "succeeded")
				}
			})
		})
	}
}

// Entries that earlier versions wrote are gone on with, each from where it stands. The files are what those versions'
// own code wrote; they are never changed, only added to.
func TestEntriesOfEarlierVersions(t *testing.T) {
	versions, err := filepath.Glob("testdata/ledger/*")
	if err != nil || len(versions) < 2 {
		t.Fatalf("%v, %v", versions, err)
	}
	for _, dir := range versions {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			values := map[string][]byte{}
			for _, name := range []string{"waiting", "called", "unknown", "submitted", "decided", "told", "machine-called", "machine-unknown"} {
				values[name], err = os.ReadFile(filepath.Join(dir, name+".txt"))
				if err != nil {
					t.Fatal(err)
				}
			}
			inWorld(t, setup{replicas: -1}, func(w *world) { w.goOn(values) })
		})
	}
}

// goOn puts values into the ledger as if their requests were under way, and judges how they end.
func (w *world) goOn(values map[string][]byte) {
	w.t.Helper()
	told, err := ledger.DecodeEntry(ledger.Record{Value: values["told"]})
	if err != nil || !told.Published || told.Outcome != message.Failed || told.Error.Code != "actionVanished" || told.ActionID == "" {
		w.t.Errorf("told: %v, %+v", err, told)
	}
	ends := []struct {
		name  string
		posts int
		end   string
	}{
		{"waiting", 1, "succeeded"},
		{"called", 0, "succeeded"},
		{"unknown", 1, "succeeded"},
		{"submitted", 0, "succeeded"},
		{"decided", 0, "failed actionVanished"},
	}
	stream := w.broker.Names().Stream
	for n, left := range ends {
		id := "golden-" + left.name
		_, err := w.ledgerBucket().Put(w.ctx, ledger.EntryKey(stream, message.Request{ID: id}, time.Time{}), values[left.name])
		w.must(err)
		if record, taken := values["machine-"+left.name]; taken {
			_, err := w.ledgerBucket().Put(w.ctx, "m."+ledger.DeploymentDigest(stream)+"."+machine(n+1), record)
			w.must(err)
		}
		w.ask(id, n+1)
	}
	// Of the two calls that the version before made one took place; and it followed an action.
	for _, a := range []defendersim.Action{
		{MachineID: machine(2), Comment: commentOf("golden-called"), Created: w.entry("golden-called").LastCall},
		{MachineID: machine(4), Comment: commentOf("golden-submitted"), ID: w.entry("golden-submitted").ActionID},
	} {
		a.Requestor = "the version before"
		w.api.Put(a)
	}
	w.start()
	w.settled(10 * time.Minute)
	for n, left := range ends {
		w.wantPosts(n+1, left.posts)
		r := w.wantFinal("golden-"+left.name, left.end)
		if r.Ticket != "INC-4711" || r.RequestedBy != "ann@contoso.com" || r.Batch != "monday" || string(r.Metadata) != `{"site":"Zürich","n":1}` {
			w.t.Errorf("%s: what it is to echo is lost: %+v", left.name, r)
		}
	}
}

// garbled is a value that no version can have written.
const garbled = `{"v":1,"state":`

// A value that no version can have written holds up its own request alone.
func TestGarbledEntryHoldsUpItsRequestAlone(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		stream := w.broker.Names().Stream
		key := ledger.EntryKey(stream, message.Request{ID: "garbled"}, time.Time{})
		_, err := w.ledgerBucket().Put(w.ctx, key, []byte(garbled))
		w.must(err)
		w.ask("garbled", 1)
		for n := range 3 {
			id := fmt.Sprint("r", n)
			w.ask(id, 2+n)
			w.ends(id)
		}
		w.passes(10 * time.Minute)
		if f, on := w.replicas[0].breaker.Current(); on {
			t.Errorf("the breaker is open: %+v", f)
		}
		w.wantPosts(1, 0)
		w.wantOutcomes("garbled")
		w.must(w.ledgerBucket().Purge(w.ctx, key)) // as the log says
		w.settled(5 * time.Minute)
		w.wantFinal("garbled", "succeeded")
		w.wantPosts(1, 1)
	})
}
