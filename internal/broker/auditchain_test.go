package broker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
)

// twoWriters is a trail of two processes, the second begun after the first has died: sequences 1 to 4 and 5 to 8.
func twoWriters(t *testing.T) []stored {
	t.Helper()
	w := newAuditWorld(t)
	for _, process := range []string{"dead", "alive"} {
		a := w.auditor(process)
		for n := range 3 {
			if err := a.Record(t.Context(), of(fmt.Sprintf("%s-%d", process, n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w.trail()
}

// counted gives messages the sequences that a stream gives which they are put into anew.
func counted(all []stored) []stored {
	out := slices.Clone(all)
	for i := range out {
		out[i].seq = uint64(i + 1)
	}
	return out
}

func altered(all []stored, i int, from, to string) []stored {
	out := slices.Clone(all)
	out[i].data = bytes.Replace(out[i].data, []byte(from), []byte(to), 1)
	return out
}

// forged is altered by somebody who knows how a record is sealed.
func forged(all []stored, i int, from, to string) []stored {
	out := altered(all, i, from, to)
	out[i].data = sealed(out[i].data[:bytes.LastIndex(out[i].data, []byte(sumBefore))])
	return out
}

// TestAuditBreaks: each kind of change is found, and named where it is.
func TestAuditBreaks(t *testing.T) {
	all := twoWriters(t)
	without := func(i int) []stored { return slices.Delete(slices.Clone(all), i, i+1) }
	swapped := func(i, j int) []stored {
		out := slices.Clone(all)
		out[i].data, out[j].data = out[j].data, out[i].data
		return out
	}
	for name, c := range map[string]struct {
		trail []stored
		want  AuditBreak
	}{
		"altered":                  {altered(all, 7, "alive-2", "alive-9"), AuditBreak{Sequence: 8, Writer: "alive-1", N: 4, What: "was altered: its sum is not that of what it says"}},
		"sum removed":              {altered(all, 7, `,"sum":`, `,"mus":`), AuditBreak{Sequence: 8, Writer: "alive-1", N: 4, What: "was altered: its sum is not that of what it says"}},
		"forged":                   {forged(all, 1, "dead-0", "dead-9"), AuditBreak{Sequence: 2, Writer: "dead-1", N: 2, What: "is not the one that record 3 (sequence 3) names: one of the two was altered"}},
		"forged last of the dead":  {forged(all, 3, "dead-2", "dead-9"), AuditBreak{Sequence: 4, What: `is not the message that writer "alive-1" saw there when it began (sequence 5): it was altered, or messages before it were added or removed`}},
		"altered first":            {altered(all, 0, "opened", "opened "), AuditBreak{Sequence: 1, What: "is no record: v, writer, n or kind is wrong"}},
		"no JSON":                  {altered(all, 5, "{", "["), AuditBreak{Sequence: 6, What: "is no record: invalid character ':' after array element"}},
		"newer":                    {altered(all, 5, `"v":1`, `"v":2`), AuditBreak{Sequence: 6, Writer: "alive-1", N: 2, What: "is of version 2, which this program does not know: verify with the newer one"}},
		"another writer":           {forged(all, 5, "alive-1", "alive-2"), AuditBreak{Sequence: 6, Writer: "alive-2", N: 2, What: "record 1 of this writer is missing"}},
		"hole in the middle":       {without(2), AuditBreak{Sequence: 3, What: "sequence 3 is missing"}},
		"holes":                    {slices.Delete(slices.Clone(all), 1, 4), AuditBreak{Sequence: 2, What: "every sequence from 2 to 4 is missing"}},
		"hole at the beginning":    {without(0), AuditBreak{Sequence: 1, What: "sequence 1 is missing"}},
		"hole at the end":          {without(7), AuditBreak{Sequence: 8, What: "sequence 8 is missing"}},
		"all gone":                 {nil, AuditBreak{Sequence: 1, What: "every sequence from 1 to 8 is missing"}},
		"removed from the middle":  {counted(without(2)), AuditBreak{Sequence: 3, Writer: "dead-1", N: 4, What: "record 3 of this writer is missing"}},
		"first removed":            {counted(without(0)), AuditBreak{Sequence: 1, Writer: "dead-1", N: 2, What: "record 1 of this writer is missing"}},
		"tail of the dead removed": {counted(without(3)), AuditBreak{Sequence: 4, What: `is not the message that writer "alive-1" saw there when it began (sequence 4): it was altered, or messages before it were added or removed`}},
		"the dead one removed":     {counted(all[4:]), AuditBreak{Sequence: 4, What: `is not the message that writer "alive-1" saw there when it began (sequence 1): it was altered, or messages before it were added or removed`}},
		"beginning removed":        {counted(without(4)), AuditBreak{Sequence: 5, Writer: "alive-1", N: 2, What: "record 1 of this writer is missing"}},
		"swapped":                  {swapped(1, 2), AuditBreak{Sequence: 2, Writer: "dead-1", N: 3, What: "record 2 of this writer is missing"}},
		"n twice":                  {counted(slices.Insert(slices.Clone(all), 2, all[1])), AuditBreak{Sequence: 3, Writer: "dead-1", N: 2, What: "comes twice or too late: record 2 is at sequence 2 already"}},
		"opened twice":             {counted(slices.Insert(slices.Clone(all), 2, all[0])), AuditBreak{Sequence: 3, Writer: "dead-1", N: 1, What: "comes twice or too late: record 2 is at sequence 2 already"}},
		"added by somebody":        {counted(slices.Insert(slices.Clone(all), 2, stored{data: sealed([]byte(`{"v":1,"writer":"x","n":1,"kind":"opened"`))})), AuditBreak{Sequence: 2, Writer: "dead-1", N: 2, What: ""}},
		"out of order in a file":   {[]stored{all[0], all[1], all[1]}, AuditBreak{Sequence: 2, What: "comes after sequence 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(c.trail, 8) // as many as the stream has given, or fewer
			found, ok := errors.AsType[*AuditBreak](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if c.want.What == "" { // its words are another's
				c.want.Sequence, c.want.N, c.want.What = found.Sequence, found.N, found.What
			}
			if diff := cmp.Diff(&c.want, found); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAuditFindsAnyChange: each byte of each message, and each message but the trail's last. What was removed is looked
// for both as a hole and in a stream that counts anew.
func TestAuditFindsAnyChange(t *testing.T) {
	all := twoWriters(t)
	if _, err := verify(all, 8); err != nil {
		t.Fatal(err)
	}
	for i, s := range all {
		end := i == len(all)-1
		if _, err := verify(slices.Delete(slices.Clone(all), i, i+1), 8); err == nil {
			t.Errorf("message %d: its hole is not found", i+1)
		}
		if _, err := verify(counted(slices.Delete(slices.Clone(all), i, i+1)), 7); (err == nil) != end {
			t.Errorf("message %d removed: %v", i+1, err)
		}
		for at := range s.data {
			changed := slices.Clone(all)
			changed[i].data = bytes.Clone(s.data)
			changed[i].data[at] ^= 1
			if _, err := verify(changed, 8); err == nil {
				t.Fatalf("message %d, byte %d: %s is not found", i+1, at, changed[i].data)
			}
		}
		for j := range i {
			swapped := slices.Clone(all)
			swapped[i].data, swapped[j].data = all[j].data, all[i].data
			if _, err := verify(swapped, 8); err == nil {
				t.Errorf("messages %d and %d swapped is not found", j+1, i+1)
			}
		}
	}
}

// TestAuditKeptHeads: who keeps the last records elsewhere misses even those.
func TestAuditKeptHeads(t *testing.T) {
	all := twoWriters(t)
	c, err := verify(all, 8)
	if err != nil {
		t.Fatal(err)
	}
	kept := c.Found()
	if heads := kept.Heads; len(heads) != 2 || heads[1] != (AuditHead{Writer: "alive-1", N: 4, Sequence: 8, SHA256: digestOf(all[7].data)}) {
		t.Fatalf("%+v", kept)
	}
	if _, err := verify(all, 8, kept); err != nil {
		t.Errorf("the same trail: %v", err)
	}
	for name, trail := range map[string][]stored{
		"last removed": all[:7],
		"last forged":  forged(all, 7, "alive-2", "alive-9"),
	} {
		if _, err := verify(trail, uint64(len(trail))); err != nil {
			t.Errorf("%s, without the heads: %v", name, err)
		}
		_, err := verify(trail, uint64(len(trail)), kept)
		if found, ok := errors.AsType[*AuditBreak](err); !ok || found.Writer != "alive-1" || found.N != 4 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAuditPart: what begins in the middle is verified from there on.
func TestAuditPart(t *testing.T) {
	all := twoWriters(t)
	part := func(messages []stored) error {
		c := NewAuditChain(3, AuditKept{}, nil)
		for _, s := range messages {
			if err := c.Add(s.message()); err != nil {
				return err
			}
		}
		return c.End(messages[len(messages)-1].seq)
	}
	if err := part(all[2:]); err != nil {
		t.Error(err)
	}
	if err := part(altered(all, 2, "dead-1", "dead-9")[2:]); err == nil {
		t.Error("an altered record of a part is not found")
	}
	if err := part(slices.Delete(slices.Clone(all), 4, 5)[2:]); err == nil {
		t.Error("a hole in a part is not found")
	}
}

// TestAuditSawLongAgo: a beginning that was stored late names a message long past, which is read again.
func TestAuditSawLongAgo(t *testing.T) {
	w := newAuditWorld(t)
	if err := w.auditor("early").Record(t.Context(), of("r")); err != nil {
		t.Fatal(err)
	}
	late := w.auditor("late")
	line := auditLine{Seen: &auditPoint{1, digestOf(w.trail()[0].data)}}
	line.Kind = auditOpened
	busy := w.auditor("busy")
	for n := range len(AuditChain{}.recent) + 1 {
		if err := busy.Record(t.Context(), of(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	late.chain = &auditWriter{id: "late-1"}
	if err := late.append(t.Context(), line); err != nil {
		t.Fatal(err)
	}
	w.wantWhole()
	all := w.trail()
	c := NewAuditChain(1, AuditKept{}, func(uint64) ([]byte, error) { return []byte("altered"), nil })
	var err error
	for _, s := range all {
		if err = c.Add(s.message()); err != nil {
			break
		}
	}
	if found, ok := errors.AsType[*AuditBreak](err); !ok || found.Sequence != 1 || !strings.Contains(found.What, "late-1") {
		t.Errorf("an altered one: %v", err)
	}
}

// TestAuditOfAStreamThatWasChanged: the same in the broker, by somebody who made the stream anew without its denials.
func TestAuditOfAStreamThatWasChanged(t *testing.T) {
	deletes := func(seq uint64) func(*testing.T, jetstream.Stream) {
		return func(t *testing.T, s jetstream.Stream) {
			if err := s.DeleteMsg(t.Context(), seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		put  func(all []stored) []stored
		then func(*testing.T, jetstream.Stream)
		want string // "": whole
	}{
		"copied": {},
		"altered": {
			put:  func(all []stored) []stored { return forged(all, 1, "dead-0", "dead-9") },
			want: "sequence 2, record 2 of writer \"dead-1\": is not the one",
		},
		"one left out":  {put: func(all []stored) []stored { return slices.Delete(all, 5, 6) }, want: "record 2 of this writer is missing"},
		"one deleted":   {then: deletes(3), want: "sequence 3: sequence 3 is missing"},
		"first deleted": {then: deletes(1), want: "sequence 1: sequence 1 is missing"},
		"last deleted":  {then: deletes(8), want: "sequence 8: sequence 8 is missing"},
		"all purged":    {then: func(t *testing.T, s jetstream.Stream) { _ = s.Purge(t.Context()) }, want: "every sequence from 1 to 8 is missing"},
		"old ones gone": {
			then: func(t *testing.T, s jetstream.Stream) { _ = s.Purge(t.Context(), jetstream.WithPurgeKeep(2)) },
			want: "every sequence from 1 to 6 is missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := twoWriters(t)
			w := newAuditWorld(t)
			if err := w.b.js.DeleteStream(t.Context(), AuditStream); err != nil {
				t.Fatal(err)
			}
			s, err := w.b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: AuditStream, Subjects: []string{AuditSubject}})
			if err != nil {
				t.Fatal(err)
			}
			if c.put != nil {
				all = c.put(all)
			}
			for _, m := range all {
				if _, err := w.b.js.Publish(t.Context(), AuditSubject, m.data); err != nil {
					t.Fatal(err)
				}
			}
			if c.then != nil {
				c.then(t, s)
			}
			trail, err := w.b.OpenAuditTrail(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			chain := NewAuditChain(1, AuditKept{}, func(seq uint64) ([]byte, error) { return trail.Payload(t.Context(), seq) })
			err = trail.Each(t.Context(), time.Time{}, chain.Add)
			if err == nil {
				err = chain.End(trail.Last())
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestAuditExport: what is exported is read back byte for byte, whatever it is.
func TestAuditExport(t *testing.T) {
	at := time.Date(2026, 11, 26, 18, 0, 0, 5, time.UTC)
	for payload, want := range map[string]string{
		`{"a": "<&>ü\u003c",  "n":1.50}`: `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","record":{"a": "<&>ü\u003c",  "n":1.50}}` + "\n",
		"{\n}":                           `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","data":"ewp9"}` + "\n",
		` {}`:                            `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","data":"IHt9"}` + "\n",
		"no JSON":                        `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","data":"bm8gSlNPTg=="}` + "\n",
		"null":                           `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","record":null}` + "\n",
		"":                               `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z"}` + "\n",
	} {
		line, err := ExportAudit(Message{Sequence: 7, Time: at, Data: []byte(payload)})
		if err != nil || string(line) != want {
			t.Errorf("%v %s, want %s", err, line, want)
		}
		back, err := ImportAudit(line)
		if err != nil || back.Sequence != 7 || string(back.Data) != payload || !back.Time.Equal(at) {
			t.Errorf("%q came back as %+v, %v", payload, back, err)
		}
	}
	for _, line := range []string{"", "{}", "[]", `{"sequence":0}`} {
		if _, err := ImportAudit([]byte(line)); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

// TestAuditOfManyChains: the version before wrote up to 16 chains a process. Its trails verify, and are gone on with.
func TestAuditOfManyChains(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "audit-many-chains.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	w := newAuditWorld(t)
	for line := range bytes.Lines(text) {
		m, err := ImportAudit(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.b.js.Publish(t.Context(), AuditSubject, m.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.auditor("new").Record(t.Context(), of("r")); err != nil {
		t.Fatal(err)
	}
	w.wantWhole()
	all := w.trail()
	if len(all) != 35 {
		t.Errorf("%d messages", len(all))
	}
	if _, err := verify(forged(all, 4, "submitted", "succeeded"), 35); err == nil {
		t.Error("an altered record is not found")
	}
}
