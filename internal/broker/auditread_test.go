package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/trail"
)

// twoWriters is a trail of two processes, the second begun after the first has died: sequences 1 to 4 and 5 to 8.
func twoWriters(t *testing.T) []trail.Message {
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
		put  func(all []trail.Message) []trail.Message
		then func(*testing.T, jetstream.Stream)
		want string // "": whole
	}{
		"copied": {},
		"altered": {
			put: func(all []trail.Message) []trail.Message {
				all[1].Data = bytes.Replace(all[1].Data, []byte("dead-0"), []byte("dead-9"), 1)
				return all
			},
			want: "sequence 2, record 2 of writer \"dead-1\": was altered",
		},
		"one left out":  {put: func(all []trail.Message) []trail.Message { return slices.Delete(all, 5, 6) }, want: "record 2 of this writer is missing"},
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
				if _, err := w.b.js.Publish(t.Context(), AuditSubject, m.Data); err != nil {
					t.Fatal(err)
				}
			}
			if c.then != nil {
				c.then(t, s)
			}
			err = w.verify()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
