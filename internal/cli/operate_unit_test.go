package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/deadletter"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/why"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

func TestStatusForPeople(t *testing.T) {
	now := time.Now()
	var out bytes.Buffer
	err := writeStatus(session.Screen{Out: &out, Width: 60}, admin.Status{
		Paused: &admin.Pause{Kind: admin.KindFault, Code: "token"},
		Conditions: []health.Condition{
			{Code: "token", Message: "the client secret has expired: make a new one\x1b[2J", Remedy: "make one", Since: now.Add(-90 * time.Minute), Stops: true, Replicas: 2},
			{Code: "settings", Message: "other", Remedy: "nothing needs to be done", Until: now},
			{Code: "policy", Message: "line 3", Remedy: "correct it"},
		},
		Queue:  admin.Queue{Pending: 12, InFlight: 3, OldestSeconds: 3 * 24 * 3600},
		Budget: []admin.Window{{Window: "minute", Limit: 100, Remaining: 7}}, Followed: 1, DeadLetters: 2, AwaitingApproval: 1, NotKept: 4,
		Results: map[string]int{message.Failed: 1, message.Succeeded: 10}, Version: "v1.2.3",
		System:   admin.System{API: "http://localhost:1", Lab: true, Account: "A", Broker: "nats://b", Streams: admin.Streams{Requests: "R", Results: "RR", DeadLetters: "RD", Orders: "RC"}},
		Replicas: []admin.Replica{{Host: "one", Version: "v1.2.3", Mode: admin.ModeLive, Ready: true}, {ID: "ab12", Version: "v1.2.2", Mode: admin.ModeDryRun, Conditions: []string{"token"}}},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `LAB           calls go to http://localhost:1, which is not
              Microsoft's address but a simulator's or a
              proxy's
state         not taking requests
why           token: the client secret has expired: make a
              new one\u{1b}[2J, for 1h30m, on 2 replicas
  do          make one
also          policy: line 3
  do          correct it
to decide     2 dead letters (worker deadletter list), 1
              approval (worker approvals)
queue         12 waiting, 3 in hand, the oldest for 3d0h
budget        7 of 100 calls left this minute
followed      1 action
not kept      4 dead letters of unverified messages
results       10 succeeded, 1 failed in 24 hours
note          settings: other, until ` + admin.Clock(now) + `
  do          nothing needs to be done
api           http://localhost:1, account A
streams       R, RR, RD, RC at nats://b
replicas      one, v1.2.3, calls the API, ready
              ab12, v1.2.2, dry run, takes no requests:
              token
version       v1.2.3
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPayloadInJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": 1.50, "b":"<>"}`: `json {"a":1.50,"b":"<>"}`,
		`"a string"`:            `json "a string"`,
		"{broken":               `text "{broken"`,
		"":                      `text ""`,
		"a\x00b":                `text "a\u0000b"`,
		"\"\xff\"":              `base64 "Iv8i"`, // json.Valid takes it
	} {
		encoding, value := deadletter.PayloadJSON([]byte(in))
		var out bytes.Buffer
		if err := session.WriteJSONLine(&out, struct {
			V json.RawMessage `json:"v"`
		}{value}); err != nil {
			t.Fatal(err)
		}
		got := encoding + " " + strings.TrimSuffix(strings.TrimPrefix(out.String(), `{"v":`), "}\n")
		if got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestPayloadForPeople(t *testing.T) {
	for in, want := range map[string]string{
		"{\n\t\"a\": 1\r\n}\n": "{\n\t\"a\": 1\n}",
		"\x1b[2J":              "(4 bytes, no text; in base64:)\nG1sySg==",
		"a\u009bb":             "(4 bytes, no text; in base64:)\nYcKbYg==",
		"\xff":                 "(1 byte, no text; in base64:)\n/w==",
		"":                     "(The payload is empty.)",
	} {
		if got := (deadletter.Letter{Data: []byte(in)}).PayloadText(); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	truncated := deadletter.Letter{Header: message.Header{message.HeaderDeadTruncated: {"true"}}}
	if got := truncated.PayloadText(); !strings.Contains(got, "too large") {
		t.Errorf("truncated: %q", got)
	}
}

// deadLetterOf is a dead letter as it is kept.
func deadLetterOf(payload string, limit int) deadletter.Letter {
	d := message.DeadLetter{
		Delivery: message.Delivery{Stream: "REMEDIATION", Sequence: 7, Subject: "remediation.unrestrict", Published: time.Now(), Data: []byte(payload)},
		Code:     "gaveUp", Message: "m", RequestID: "REMEDIATION:7", Run: 1, Time: time.Now(),
	}
	h, body := d.Render(limit)
	return deadletter.Letter{Seq: 3, Dead: message.ReadDeadLetter(h, body), Header: h, Data: body}
}

// TestHopelessReplays: what is rejected whatever happens.
func TestHopelessReplays(t *testing.T) {
	hopeless := func(l deadletter.Letter, n broker.Names, now time.Time) string {
		if r := service.ReplayOf(n, l.Dead, l.Header, l.Data, now); r.Chance == service.ReplayRefused {
			return r.Text
		}
		return ""
	}
	good := `{"machineId":"` + MachineOf(1) + `","comment":"c"`
	ours := broker.Names{Stream: "REMEDIATION", Subject: "remediation.unrestrict", ResultsSubject: "remediation.results"}
	for payload, want := range map[string]string{
		good + `}`: "",
		good + `,"expiresAt":"2999-01-01T00:00:00Z"}`: "",
		good + `,"expiresAt":"2020-01-01T00:00:00Z"}`: "has expired",
		good + `,"replyTo":"remediation.results"}`:    "replyTo: is a subject of the worker itself",
		`{`: "A replay is rejected: malformed",
	} {
		got := hopeless(deadLetterOf(payload, 0), ours, time.Now())
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
	for _, others := range []broker.Names{{Stream: "STAGING", Subject: ours.Subject}, {Stream: ours.Stream, Subject: "staging.unrestrict"}} {
		if got := hopeless(deadLetterOf(good+`}`, 0), others, time.Now()); !strings.Contains(got, "on remediation.unrestrict of stream REMEDIATION") {
			t.Errorf("another deployment's: %q", got)
		}
	}
	conflict := deadLetterOf(good+`}`, 0)
	conflict.Dead.Code = message.CodeIDConflict
	if now, later := hopeless(conflict, ours, time.Now()), hopeless(conflict, ours, time.Now().Add(8*24*time.Hour)); !strings.Contains(now, "another request has its id") || later != "" {
		t.Errorf("a conflict: %q, and when the other is forgotten %q", now, later)
	}
	if got := hopeless(deadLetterOf(good+`}`, 100), broker.Names{}, time.Now()); !strings.Contains(got, "payload was left out") {
		t.Errorf("truncated: %q", got)
	}
}

func TestSelection(t *testing.T) {
	letters := []deadletter.Letter{
		{Seq: 1, Dead: message.DeadLetter{RequestID: "a", Code: "x"}},
		{Seq: 2, Dead: message.DeadLetter{RequestID: "a", Code: "y"}},
		{Seq: 3, Dead: message.DeadLetter{RequestID: "b", Code: "x"}},
	}
	for _, c := range []struct {
		s         deadletter.Selection
		seqs      []uint64
		unknown   string
		ambiguous string
	}{
		{s: deadletter.Selection{All: true}, seqs: []uint64{1, 2, 3}},
		{s: deadletter.Selection{Code: "x"}, seqs: []uint64{1, 3}},
		{s: deadletter.Selection{Code: "none"}},
		{s: deadletter.Selection{IDs: []string{"a"}}, seqs: []uint64{1, 2}, ambiguous: "2 dead letters of a: say which with --seq, one of 1, 2"},
		{s: deadletter.Selection{IDs: []string{"a"}, Seq: 2}, seqs: []uint64{2}},
		{s: deadletter.Selection{IDs: []string{"a", "b"}, Code: "x"}, seqs: []uint64{1, 3}},
		{s: deadletter.Selection{IDs: []string{"b", "c", "d"}}, seqs: []uint64{3}, unknown: "no such dead letter: c, d"},
		{s: deadletter.Selection{Seq: 9}, unknown: "no such dead letter: sequence 9"},
	} {
		var seqs []uint64
		var meant []deadletter.Letter
		for _, l := range letters {
			if c.s.Matches(l) {
				seqs, meant = append(seqs, l.Seq), append(meant, l)
			}
		}
		if diff := cmp.Diff(c.seqs, seqs); diff != "" {
			t.Errorf("%+v: %s", c.s, diff)
		}
		for want, err := range map[string]error{c.unknown: c.s.Unknown(meant), c.ambiguous + " ": c.s.Ambiguous(meant)} {
			if want = strings.TrimSpace(want); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c.s, err, want)
			}
		}
	}
}

func TestWhatARequestWaitsFor(t *testing.T) {
	now := time.Now()
	due := now.Add(time.Minute)
	at := admin.Clock(now)
	for name, c := range map[string]struct {
		e      ledger.Entry
		queued bool
		gone   bool
		held   bool
		want   []string
	}{
		"ended":                    {e: ledger.Entry{State: ledger.StateFinal, Published: true}},
		"coming again":             {e: ledger.Entry{State: ledger.StateFinal, Published: true}, queued: true, want: []string{"being taken"}},
		"not told":                 {e: ledger.Entry{State: ledger.StateFinal, Outcome: "failed"}, want: []string{"its result to be published; it is decided: failed"}},
		"followed":                 {e: ledger.Entry{State: ledger.StateSubmitted, Follow: true, ActionID: "A"}, want: []string{"the end of action A"}},
		"not followed":             {e: ledger.Entry{State: ledger.StateSubmitted}},
		"being called":             {e: ledger.Entry{State: ledger.StateCalled, LastCall: now}, want: []string{"the answer to the call of " + at + ", or the look-up of what became of it"}},
		"fate unknown":             {e: ledger.Entry{State: ledger.StateUnknown, LastCall: now, Looks: 2}, want: []string{"a look-up of whether the call of " + at + " took place (2 of 3 have not shown it)"}},
		"due again":                {e: ledger.Entry{State: ledger.StateWaiting, NotBefore: due}, want: []string{"its next attempt", "its time: not tried again before " + admin.Clock(due)}},
		"held up":                  {e: ledger.Entry{State: ledger.StateWaiting}, held: true, want: []string{"store: full"}},
		"held up by its own fault": {e: ledger.Entry{State: ledger.StateWaiting, LastError: &message.Failure{Code: health.Store, Message: "full"}}, held: true, want: []string{"store: full"}},
		"unknown, held":            {e: ledger.Entry{State: ledger.StateUnknown, LastCall: now}, held: true, want: []string{"a look-up of whether the call of " + at + " took place (0 of 3 have not shown it)", "store: full"}},
		"purged": {e: ledger.Entry{State: ledger.StateUnknown}, gone: true, want: []string{"nothing that will come: its message is gone from its stream (purged, deleted, or past the stream's limits), and no replica takes " +
			"a request up without it. Publish it again, with the same id, machine and comment: it goes on from here, and a call that was made is looked up first"}},
		"never fits":           {e: ledger.Entry{State: ledger.StateFinal, Outcome: "failed", LastError: &message.Failure{Origin: message.OriginWorker, Code: health.Unpublishable, Message: "too large"}}, want: []string{"its result to be published; it is decided: failed", "unpublishable: too large"}},
		"purged, and accepted": {e: ledger.Entry{State: ledger.StateSubmitted, Follow: true, ActionID: "A"}, gone: true, want: []string{"the end of action A"}},
		"after a fault":        {e: ledger.Entry{State: ledger.StateWaiting, LastError: &message.Failure{Code: "http404", Message: "no"}}, want: []string{"its next attempt", "an end of this fault: http404: no"}},
	} {
		s := &why.History{Entry: &c.e, MessageGone: c.gone}
		if c.queued {
			s.Queued = []service.Queued{{}}
		}
		var held []health.Condition
		if c.held {
			held = []health.Condition{health.New(health.Store, "full")}
		}
		if diff := cmp.Diff(c.want, s.Waits(now, held)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "under 1s", time.Millisecond: "under 1s", 1600 * time.Millisecond: "2s", 5 * time.Minute: "5m",
		5*time.Minute + 7*time.Second: "5m7s", 3*time.Hour + 29*time.Minute + 40*time.Second: "3h30m", 49 * time.Hour: "2d1h",
	} {
		if got := admin.Roughly(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestColours(t *testing.T) {
	if got := (session.Screen{Colour: true}).Paint(session.Red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("%q", got)
	}
	if got := (session.Screen{}).Paint(session.Red, "x"); got != "x" {
		t.Errorf("%q", got)
	}
}

// TestReplayThatIsDone: the broker's memory of the message id outlives the replay and its dead letter. One that is
// published once more asks for nothing.
func TestReplayThatIsDone(t *testing.T) {
	s := runSystem(t, nil)
	s.refuse(MachineOf(1))
	b := s.work.Broker
	if _, err := b.Publish(t.Context(), message.LaneNormal, nil, []byte(`{"id":"one","machineId":"`+MachineOf(1)+`","comment":"c"}`)); err != nil {
		t.Fatal(err)
	}
	lettersOf := func(n int) []deadletter.Letter {
		for {
			letters, err := deadletter.ReadLetters(t.Context(), b, func(deadletter.Letter) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			if len(letters) == n {
				return letters
			}
			if !service.Pause(t.Context(), 5*time.Millisecond) {
				t.Fatal(len(letters))
			}
		}
	}
	l := lettersOf(1)[0]
	s.sim.ClearFaults()
	if err := l.Publish(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	lettersOf(0)
	if err := l.Publish(t.Context(), b); err != nil || requestsPublished(t, b) != 3 {
		t.Errorf("again: %v, %d messages", err, requestsPublished(t, b))
	}
	for taken := 0; taken == 0; {
		var err error
		if taken, err = b.Acked(t.Context(), message.LaneNormal, []uint64{3}); err != nil || !service.Pause(t.Context(), 5*time.Millisecond) {
			t.Fatal(err)
		}
	}
	if lettersOf(0); len(s.sim.Actions()) != 1 {
		t.Errorf("%d calls were accepted", len(s.sim.Actions()))
	}
}
