package trail

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// journal is a trail as it is being written.
type journal struct {
	t   *testing.T
	all []Message
}

func (j *journal) now() time.Time {
	return time.Date(2026, 11, 26, 18, 0, len(j.all), 0, time.UTC)
}

// store is what the broker does with a payload.
func (j *journal) store(w *Writer, payload []byte, err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
	m := Message{Sequence: uint64(len(j.all) + 1), Time: j.now(), Data: payload}
	w.Stored(m.Sequence, payload)
	j.all = append(j.all, m)
}

// open begins a chain that has seen what there is.
func (j *journal) open(writer string) *Writer {
	j.t.Helper()
	w := NewWriter(writer)
	var seen *Point
	if n := len(j.all); n > 0 {
		last := j.all[n-1].Point()
		seen = &last
	}
	payload, err := w.Open(j.now(), seen)
	j.store(w, payload, err)
	return w
}

func (j *journal) record(w *Writer, id string) {
	j.t.Helper()
	r := ledger.AuditRecord{Kind: ledger.AuditDecided, RequestID: id, Outcome: "succeeded"}
	payload, err := w.Next(j.now(), r, 1<<20)
	j.store(w, payload, err)
}

// verify is a whole verification of a stream that has given last.
func verify(all []Message, last uint64, kept ...Kept) (*Chain, error) {
	var before Kept
	if len(kept) > 0 {
		before = kept[0]
	}
	c := NewChain(1, before, func(seq uint64) ([]byte, error) {
		for _, m := range all {
			if m.Sequence == seq {
				return m.Data, nil
			}
		}
		return nil, nil
	})
	for _, m := range all {
		if err := c.Add(m); err != nil {
			return c, err
		}
	}
	return c, c.End(last)
}

// twoWriters is a trail of two processes, the second begun after the first has died: sequences 1 to 4 and 5 to 8.
func twoWriters(t *testing.T) []Message {
	t.Helper()
	j := &journal{t: t}
	for _, process := range []string{"dead", "alive"} {
		w := j.open(process + "-1")
		for n := range 3 {
			j.record(w, fmt.Sprintf("%s-%d", process, n))
		}
	}
	return j.all
}
