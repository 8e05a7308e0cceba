package trail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counted gives messages the sequences that a stream gives which they are put into anew.
func counted(all []Message) []Message {
	out := slices.Clone(all)
	for i := range out {
		out[i].Sequence = uint64(i + 1)
	}
	return out
}

func altered(all []Message, i int, from, to string) []Message {
	out := slices.Clone(all)
	out[i].Data = bytes.Replace(out[i].Data, []byte(from), []byte(to), 1)
	return out
}

// forged is altered by somebody who knows how a record is sealed.
func forged(all []Message, i int, from, to string) []Message {
	out := altered(all, i, from, to)
	out[i].Data = seal(out[i].Data[:bytes.LastIndex(out[i].Data, []byte(sumBefore))])
	return out
}

// TestAuditBreaks: each kind of change is found, and named where it is.
func TestAuditBreaks(t *testing.T) {
	all := twoWriters(t)
	without := func(i int) []Message { return slices.Delete(slices.Clone(all), i, i+1) }
	swapped := func(i, j int) []Message {
		out := slices.Clone(all)
		out[i].Data, out[j].Data = out[j].Data, out[i].Data
		return out
	}
	for name, c := range map[string]struct {
		all  []Message
		want Break
	}{
		"altered":                  {altered(all, 7, "alive-2", "alive-9"), Break{Sequence: 8, Writer: "alive-1", N: 4, What: "was altered: its sum is not that of what it says"}},
		"sum removed":              {altered(all, 7, `,"sum":`, `,"mus":`), Break{Sequence: 8, Writer: "alive-1", N: 4, What: "was altered: its sum is not that of what it says"}},
		"forged":                   {forged(all, 1, "dead-0", "dead-9"), Break{Sequence: 2, Writer: "dead-1", N: 2, What: "is not the one that record 3 (sequence 3) names: one of the two was altered"}},
		"forged last of the dead":  {forged(all, 3, "dead-2", "dead-9"), Break{Sequence: 4, What: `is not the message that writer "alive-1" saw there when it began (sequence 5): it was altered, or messages before it were added or removed`}},
		"altered first":            {altered(all, 0, "opened", "opened "), Break{Sequence: 1, What: "is no record: v, writer, n or kind is wrong"}},
		"no JSON":                  {altered(all, 5, "{", "["), Break{Sequence: 6, What: "is no record: a JSON value that begins with [ stands where another type belongs (at byte 0)"}},
		"newer":                    {altered(all, 5, `"v":1`, `"v":2`), Break{Sequence: 6, Writer: "alive-1", N: 2, What: "is of version 2, which this program does not know: verify with the newer one"}},
		"another writer":           {forged(all, 5, "alive-1", "alive-2"), Break{Sequence: 6, Writer: "alive-2", N: 2, What: "record 1 of this writer is missing"}},
		"hole in the middle":       {without(2), Break{Sequence: 3, What: "sequence 3 is missing"}},
		"holes":                    {slices.Delete(slices.Clone(all), 1, 4), Break{Sequence: 2, What: "every sequence from 2 to 4 is missing"}},
		"hole at the beginning":    {without(0), Break{Sequence: 1, What: "sequence 1 is missing"}},
		"hole at the end":          {without(7), Break{Sequence: 8, What: "sequence 8 is missing"}},
		"all gone":                 {nil, Break{Sequence: 1, What: "every sequence from 1 to 8 is missing"}},
		"removed from the middle":  {counted(without(2)), Break{Sequence: 3, Writer: "dead-1", N: 4, What: "record 3 of this writer is missing"}},
		"first removed":            {counted(without(0)), Break{Sequence: 1, Writer: "dead-1", N: 2, What: "record 1 of this writer is missing"}},
		"tail of the dead removed": {counted(without(3)), Break{Sequence: 4, What: `is not the message that writer "alive-1" saw there when it began (sequence 4): it was altered, or messages before it were added or removed`}},
		"the dead one removed":     {counted(all[4:]), Break{Sequence: 4, What: `is not the message that writer "alive-1" saw there when it began (sequence 1): it was altered, or messages before it were added or removed`}},
		"beginning removed":        {counted(without(4)), Break{Sequence: 5, Writer: "alive-1", N: 2, What: "record 1 of this writer is missing"}},
		"swapped":                  {swapped(1, 2), Break{Sequence: 2, Writer: "dead-1", N: 3, What: "record 2 of this writer is missing"}},
		"n twice":                  {counted(slices.Insert(slices.Clone(all), 2, all[1])), Break{Sequence: 3, Writer: "dead-1", N: 2, What: "comes twice or too late: record 2 is at sequence 2 already"}},
		"opened twice":             {counted(slices.Insert(slices.Clone(all), 2, all[0])), Break{Sequence: 3, Writer: "dead-1", N: 1, What: "comes twice or too late: record 2 is at sequence 2 already"}},
		"added by somebody":        {counted(slices.Insert(slices.Clone(all), 2, Message{Data: seal([]byte(`{"v":1,"writer":"x","n":1,"kind":"opened"`))})), Break{Sequence: 2, Writer: "dead-1", N: 2, What: ""}},
		"out of order in a file":   {[]Message{all[0], all[1], all[1]}, Break{Sequence: 2, What: "comes after sequence 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(c.all, 8) // as many as the stream has given, or fewer
			found, ok := errors.AsType[*Break](err)
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
		for at := range s.Data {
			changed := slices.Clone(all)
			changed[i].Data = bytes.Clone(s.Data)
			changed[i].Data[at] ^= 1
			if _, err := verify(changed, 8); err == nil {
				t.Fatalf("message %d, byte %d: %s is not found", i+1, at, changed[i].Data)
			}
		}
		for j := range i {
			swapped := slices.Clone(all)
			swapped[i].Data, swapped[j].Data = all[j].Data, all[i].Data
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
	if heads := kept.Heads; len(heads) != 2 || heads[1] != (Head{Writer: "alive-1", N: 4, Sequence: 8, SHA256: digest(all[7].Data)}) {
		t.Fatalf("%+v", kept)
	}
	if _, err := verify(all, 8, kept); err != nil {
		t.Errorf("the same trail: %v", err)
	}
	for name, trail := range map[string][]Message{
		"last removed": all[:7],
		"last forged":  forged(all, 7, "alive-2", "alive-9"),
	} {
		if _, err := verify(trail, uint64(len(trail))); err != nil {
			t.Errorf("%s, without the heads: %v", name, err)
		}
		_, err := verify(trail, uint64(len(trail)), kept)
		if found, ok := errors.AsType[*Break](err); !ok || found.Writer != "alive-1" || found.N != 4 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAuditPart: what begins in the middle is verified from there on.
func TestAuditPart(t *testing.T) {
	all := twoWriters(t)
	part := func(messages []Message) error {
		c := NewChain(3, Kept{}, nil)
		for _, s := range messages {
			if err := c.Add(s); err != nil {
				return err
			}
		}
		return c.End(messages[len(messages)-1].Sequence)
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
	j := &journal{t: t}
	j.record(j.open("early-1"), "r")
	seen, late := j.all[0].Point(), NewWriter("late-1")
	opening, err := late.Open(j.now(), &seen)
	busy := j.open("busy-1")
	for n := range len(Chain{}.recent) + 1 {
		j.record(busy, fmt.Sprint(n))
	}
	j.store(late, opening, err)
	if _, err := verify(j.all, uint64(len(j.all))); err != nil {
		t.Error(err)
	}
	c := NewChain(1, Kept{}, func(uint64) ([]byte, error) { return []byte("altered"), nil })
	for _, m := range j.all {
		if err = c.Add(m); err != nil {
			break
		}
	}
	if found, ok := errors.AsType[*Break](err); !ok || found.Sequence != 1 || !strings.Contains(found.What, "late-1") {
		t.Errorf("an altered one: %v", err)
	}
}

// TestAuditOfManyChains: the version before wrote up to 16 chains a process. Its trails verify, and are gone on with.
func TestAuditOfManyChains(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "many-chains.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{t: t}
	for line := range bytes.Lines(text) {
		m, err := Import(line)
		if err != nil {
			t.Fatal(err)
		}
		j.all = append(j.all, m)
	}
	j.record(j.open("new-1"), "r")
	if _, err := verify(j.all, 35); err != nil {
		t.Error(err)
	}
	if _, err := verify(forged(j.all, 4, "submitted", "succeeded"), 35); err == nil {
		t.Error("an altered record is not found")
	}
}
