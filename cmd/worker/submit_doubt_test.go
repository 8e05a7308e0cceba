package main

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// TestIsOf: a message that bears a row's message id is the row's only if it asks for the same, as this signer, and the
// worker will take it so.
func TestIsOf(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ann", "bob"} {
		if _, err := writeSeed(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// row is a message as an earlier run of submit published it.
	row := func(signer, comment, ticket string, expires time.Time) (*bulk, prepared) {
		t.Helper()
		b := &bulk{batch: "monday", subject: "remediation.unrestrict", rules: remediation.Rules{Stream: "REMEDIATION"}}
		c := &SubmitCmd{}
		if signer != "" {
			c.SignWith = filepath.Join(dir, signer)
		}
		if err := c.signWith(b); err != nil {
			t.Fatal(err)
		}
		b.expires = expires.UTC().Format(time.RFC3339)
		p := prepared{line: 2, message: message{MachineID: testMachine(1), Comment: comment, Ticket: ticket}}
		if err := b.complete(&p); err != nil {
			t.Fatal(err)
		}
		return b, p
	}
	soon, later := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	_, earlier := row("", "c", "", soon)
	_, corrected := row("", "c", "T-1", soon)
	_, other := row("", "d", "", soon)
	_, signed := row("ann", "c", "", soon)
	_, expired := row("ann", "c", "", time.Now().Add(-time.Second))
	_, signedOther := row("ann", "d", "", soon)
	_, byBob := row("bob", "c", "", soon)
	altered := signed
	altered.payload = slices.Concat(signed.payload, []byte(" "))

	plain, p := row("", "c", "", later)
	ann, a := row("ann", "c", "", later)
	for _, c := range []struct {
		name  string
		b     *bulk
		p     prepared
		kept  prepared
		extra remediation.Header
		want  bool
	}{
		{"the same", plain, p, earlier, nil, true},
		{"with another ticket", plain, p, corrected, nil, false},
		{"with another comment", plain, p, other, nil, false},
		{"nothing at all", plain, p, prepared{payload: []byte("{}")}, nil, false},
		{"a header on which the worker acts", plain, p, earlier, remediation.Header{remediation.HeaderReplay: {"1"}}, false},
		{"signed where ours is not", plain, p, signed, nil, false},
		{"signed, of an earlier run", ann, a, signed, nil, true},
		{"signed, but expired", ann, a, expired, nil, false},
		{"signed, with another comment", ann, a, signedOther, nil, false},
		{"signed by another", ann, a, byBob, nil, false},
		{"not signed where ours is", ann, a, earlier, nil, false},
		{"signed, and altered", ann, a, altered, nil, false},
		{"signed, with a header on which the worker acts", ann, a, signed, remediation.Header{remediation.HeaderReplay: {"1"}}, false},
	} {
		h := remediation.Header{"Nats-Msg-Id": {"x"}}
		maps.Copy(h, c.kept.header)
		maps.Copy(h, c.extra)
		if got := c.b.isOf(c.p, broker.Message{Header: h, Data: c.kept.payload}); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// TestSubmitManyDuplicates: more rows in doubt than are read at once, some waiting and some carried out.
func TestSubmitManyDuplicates(t *testing.T) {
	const n = 2*doubtsAtOnce + 10
	s := runSystem(t, nil)
	path := writeTestFile(t, "machines.csv", csvOf(n))
	submit := func() *submission {
		sub, done, err := (&SubmitCmd{File: path, Batch: "monday"}).prepare(t.Context(), commandEnv(s))
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		if err := sub.carryOut(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		return sub
	}
	submit()
	for range 3 {
		if again := submit(); again.stored != n || again.duplicates != n || requestsPublished(t, s.work.broker) != n {
			t.Errorf("%d stored, %d of them before; %d are in the stream", again.stored, again.duplicates, requestsPublished(t, s.work.broker))
		}
	}
}
