package remediation

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// orderBook hears orders in the order in which they are given, a minute apart.
type orderBook struct {
	*Orders
	t     *testing.T
	seeds map[string][]byte
	seq   uint64
	now   time.Time
}

// newOrderBook is without signers if none are named; ops may operate.
func newOrderBook(t *testing.T, signers ...string) *orderBook {
	t.Helper()
	b := &orderBook{Orders: &Orders{}, t: t, seeds: map[string][]byte{}, now: time.Now().Add(-time.Hour)}
	list, rules := "", "default: {}\nsigners:\n"
	for _, name := range append(signers, "stranger") {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		b.seeds[name], _ = pair.Seed()
		if public, _ := pair.PublicKey(); name != "stranger" {
			list += name + "=" + public + ","
		}
		if name == "ops" {
			rules += "  ops: {operate: true}\n"
		}
	}
	if len(signers) == 0 {
		return b
	}
	var err error
	if b.Rules.Signers, err = message.ParseSigners(list); err != nil {
		t.Fatal(err)
	}
	if b.seeds["ops"] == nil {
		return b
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.Policy, err = policy.Load(path, b.Rules.Signers); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *orderBook) delivery(by, payload string, more ...string) message.Delivery {
	b.t.Helper()
	b.seq++
	b.now = b.now.Add(time.Minute)
	d := message.Delivery{Stream: "C", Sequence: b.seq, Subject: "remediation.control", Header: message.Header{}, Data: []byte(payload), Published: b.now}
	for i := 0; i < len(more); i += 2 {
		d.Header[more[i]] = []string{more[i+1]}
	}
	if by == "" {
		return d
	}
	key, signature, err := message.Sign(b.seeds[by], d.Subject, d.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	d.Header[message.HeaderSigner], d.Header[message.HeaderSignature] = []string{key}, []string{signature}
	return d
}

func (b *orderBook) give(by, payload string, more ...string) {
	b.Apply(b.delivery(by, payload, more...))
}

func (b *orderBook) say(t target) string {
	all := b.about(t)
	said := ""
	if c := all.cancel; c != nil {
		said = fmt.Sprintf("cancel by %q: %s", c.By, c.Reason)
		if c.Batch != "" {
			said += " of " + c.Batch
		}
		if c.Actions {
			said += " and its action"
		}
	}
	if all.held != nil {
		said += fmt.Sprintf("held by %q", all.held.By)
	}
	return said
}

type given struct {
	by, payload string
	header      []string
}

// TestWhatIsOrdered: who may order what, about whom, and what of several orders counts.
func TestWhatIsOrdered(t *testing.T) {
	signed, unsigned := []string{"ann", "ben", "ops"}, []string(nil)
	cancel := func(more string) string { return `{"verb":"cancel","id":"x","reason":"r"` + more + `}` }
	pause, resume := `{"verb":"pause","batch":"b"}`, `{"verb":"resume","batch":"b"}`
	of := func(signer string) target {
		return target{id: "x", batch: "b", signer: signer, run: 1, asked: time.Now().Add(-30 * time.Minute)}
	}
	second := of("ann")
	second.run = 2
	replayed := second
	replayed.asked = time.Now().Add(-58 * time.Minute) // between the first and the last of three
	client := target{id: "x", batch: "b", client: "soar", run: 1}
	for _, c := range []struct {
		name    string
		signers []string
		orders  []given
		about   target
		want    string
	}{
		{"nothing", unsigned, nil, of(""), ""},
		{"by whoever may publish", unsigned, []given{{"", cancel(""), nil}}, of(""), `cancel by "": r`},
		{"another id", unsigned, []given{{"", `{"verb":"cancel","id":"y"}`, nil}}, of(""), ""},
		{"a batch", unsigned, []given{{"", `{"verb":"cancel","batch":"b","reason":"r"}`, nil}}, of(""), `cancel by "": r of b`},
		{"of another client", unsigned, []given{{"", cancel(`,"client":"other"`), nil}}, client, ""},
		{"through the intake", unsigned, []given{{"", cancel(""), []string{"Request-Client", "soar"}}}, client, `cancel by "soar": r`},
		{"through the intake, another's", unsigned, []given{{"", cancel(""), []string{"Request-Client", "soar"}}}, of(""), ""},
		{"through the intake, naming another", unsigned, []given{{"", cancel(`,"client":"soar"`), []string{"Request-Client", "other"}}}, client, ""},
		{"the first counts, the action of any", unsigned, []given{{"", cancel(""), nil}, {"", `{"verb":"cancel","id":"x","reason":"later","actions":true}`, nil}}, of(""), `cancel by "": r and its action`},
		{"both of id and batch", unsigned, []given{{"", `{"verb":"cancel","batch":"b","reason":"all"}`, nil}, {"", cancel(""), nil}}, of(""), `cancel by "": all of b`},
		{"of run 1", unsigned, []given{{"", cancel(`,"run":1`), nil}}, second, ""},
		{"of run 2", unsigned, []given{{"", cancel(`,"run":2`), nil}}, second, `cancel by "": r`},
		{"of the run that was open, and another opened since", unsigned, []given{{"", cancel(""), nil}}, second, ""},

		{"of a run that ended, and of the replay", unsigned, []given{{"", cancel(""), nil}, {"", `{"verb":"pause","batch":"other"}`, nil}, {"", cancel(""), nil}}, replayed, `cancel by "": r`},

		{"one's own", signed, []given{{"ann", cancel(""), nil}}, of("ann"), `cancel by "ann": r`},
		{"another's", signed, []given{{"ben", cancel(""), nil}}, of("ann"), ""},
		{"another's, naming him", signed, []given{{"ben", cancel(`,"signedBy":"ann"`), nil}}, of("ann"), ""},
		{"by one who may operate", signed, []given{{"ops", cancel(""), nil}}, of("ann"), `cancel by "ops": r`},
		{"who means somebody else", signed, []given{{"ops", cancel(`,"signedBy":"ben"`), nil}}, of("ann"), ""},
		{"unsigned", signed, []given{{"", cancel(""), nil}}, of("ann"), ""},
		{"by a stranger", signed, []given{{"stranger", cancel(""), nil}}, of("ann"), ""},
		{"without a policy nobody operates", []string{"ann", "ben"}, []given{{"ben", `{"verb":"pause","batch":"b"}`, nil}}, of("ann"), ""},

		{"paused", signed, []given{{"ops", pause, nil}}, of("ann"), `held by "ops"`},
		{"paused and resumed", signed, []given{{"ops", pause, nil}, {"ops", resume, nil}}, of("ann"), ""},
		{"paused again", signed, []given{{"ops", pause, nil}, {"ops", resume, nil}, {"ops", `{"verb":"pause","batch":"b","issuedAt":"2026-01-01T00:00:00Z"}`, nil}}, of("ann"), `held by "ops"`},
		{"an old resume again", signed, []given{{"ops", pause, nil}, {"ops", resume, nil}, {"ops", `{"verb":"pause","batch":"b","issuedAt":"2026-01-01T00:00:00Z"}`, nil}, {"ops", resume, nil}}, of("ann"), `held by "ops"`},
		{"an old pause again", signed, []given{{"ops", pause, nil}, {"ops", resume, nil}, {"ops", pause, nil}}, of("ann"), ""},
		{"nobody signs: each counts", unsigned, []given{{"", pause, nil}, {"", resume, nil}, {"", pause, nil}}, of(""), `held by ""`},
		{"his own rows", signed, []given{{"ben", pause, nil}}, of("ben"), `held by "ben"`},
		{"his own rows, not another's", signed, []given{{"ben", pause, nil}}, of("ann"), ""},
		{"his own resume does not end the operator's pause", signed, []given{{"ops", pause, nil}, {"ann", resume, nil}}, of("ann"), `held by "ops"`},
		{"the operator's resume ends everybody's", signed, []given{{"ann", pause, nil}, {"ops", resume, nil}}, of("ann"), ""},
		{"cancelled and paused", signed, []given{{"ops", pause, nil}, {"ann", `{"verb":"cancel","batch":"b"}`, nil}}, of("ann"), `cancel by "ann":  of bheld by "ops"`},
		{"no batch", signed, []given{{"ops", pause, nil}}, target{id: "x", signer: "ann", run: 1}, ""},
	} {
		b := newOrderBook(t, c.signers...)
		for _, g := range c.orders {
			b.give(g.by, g.payload, g.header...)
		}
		if got := b.say(c.about); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// TestOrdersAreForgotten: an order about an id is in force for 7 days, one about a batch for as long as the stream has it.
func TestOrdersAreForgotten(t *testing.T) {
	b := newOrderBook(t)
	b.now = time.Now().Add(-OrderLifetime - time.Minute - time.Second)
	b.give("", `{"verb":"cancel","id":"x"}`)
	b.now = time.Now().Add(-300 * 24 * time.Hour)
	b.give("", `{"verb":"pause","batch":"b"}`)
	if got := b.say(target{id: "x", batch: "b", run: 1}); got != `held by ""` || len(b.ids) > 0 {
		t.Errorf("got %s, and keeps %v", got, b.ids)
	}
	b.now = time.Now().Add(-OrderLifetime + time.Minute)
	b.give("", `{"verb":"cancel","id":"x"}`)
	for _, of := range b.ids {
		for i := range of {
			of[i].Stored = of[i].Stored.Add(-3 * time.Minute)
		}
	}
	if got := b.say(target{id: "x", run: 1}); got != "" {
		t.Errorf("got %s", got)
	}
	b.ReadTo(time.Now())
	if len(b.ids) > 0 {
		t.Errorf("keeps %v", b.ids)
	}
}

// TestNobodysOrdersLeaveNothing: a flood of what nobody vouches for takes no memory, and what somebody signed takes it once.
func TestNobodysOrdersLeaveNothing(t *testing.T) {
	b := newOrderBook(t, "ann", "ops")
	before := maps.Clone(b.seen)
	good := b.delivery("ann", `{"verb":"cancel","id":"x"}`)
	for n := range 1000 {
		b.give("", fmt.Sprintf(`{"verb":"cancel","id":"x%d"}`, n))
		b.give("", fmt.Sprintf(`{"verb":"pause","batch":"x%d"`, n))
	}
	b.give("stranger", `{"verb":"cancel","id":"y"}`)
	if len(b.ids)+len(b.batches) > 0 || len(b.seen) != len(before) {
		t.Errorf("it keeps %d, %d, %d", len(b.ids), len(b.batches), len(b.seen))
	}
	for range 1000 {
		b.seq++
		good.Sequence = b.seq
		b.Apply(good)
	}
	if len(b.ids) != 1 || len(b.seen) != 1 {
		t.Errorf("it keeps %d, %d", len(b.ids), len(b.seen))
	}
}

// TestOldResumeInANewStream: the same signed bytes count once, also where the stream was lost and begins at 1 again.
func TestOldResumeInANewStream(t *testing.T) {
	b := newOrderBook(t, "ops")
	b.give("ops", `{"verb":"resume","batch":"b"}`)
	b.give("ops", `{"verb":"pause","batch":"b"}`)
	b.seq = 0 // at the very place that it had
	b.give("ops", `{"verb":"resume","batch":"b"}`)
	if got := b.say(target{id: "x", batch: "b", run: 1}); got != `held by "ops"` {
		t.Errorf("got %q", got)
	}
}

// TestOrdersOfOneSignerAreBounded: who is trusted with requests of his own has so many orders count in any 7 days, by the broker's
// time; who may operate is not bounded.
func TestOrdersOfOneSignerAreBounded(t *testing.T) {
	b := newOrderBook(t, "ann", "ben", "ops")
	first := b.delivery("ann", `{"verb":"cancel","id":"x"}`)
	b.Apply(first)
	key := first.Header.Get(message.HeaderSigner)
	for range maxOrders - 1 {
		b.counts[key] = append(b.counts[key], first.Published)
	}
	cancels := `{"verb":"cancel","id":"y","reason":"r"}`
	mine := target{id: "y", signer: "ann", run: 1}
	over := b.delivery("ann", cancels)
	b.Apply(over)
	if _, why := b.Judge(over); why == nil || why.Code != CodeTooOften || b.say(mine) != "" || len(b.ids) != 1 || len(b.seen) != 1 {
		t.Errorf("one too many: %v, %q, it keeps %d, %d", why, b.say(mine), len(b.ids), len(b.seen))
	}
	b.give("ben", `{"verb":"cancel","id":"y"}`)
	b.give("ops", `{"verb":"cancel","batch":"b"}`)
	if b.say(target{id: "y", signer: "ben", run: 1}) == "" || b.say(target{batch: "b", signer: "ann", run: 1}) == "" {
		t.Error("another signer's order does not count")
	}
	b.now = first.Published.Add(OrderLifetime)
	later := b.delivery("ann", cancels) // a minute after that
	b.Apply(later)
	if _, why := b.Judge(later); why != nil || b.say(mine) == "" {
		t.Errorf("when the first is 7 days old: %v, %q", why, b.say(mine))
	}
}

// TestJudged: what the audit trail says of an order that changes nothing.
func TestJudged(t *testing.T) {
	b := newOrderBook(t, "ann", "ops")
	again := b.delivery("ops", `{"verb":"resume","batch":"b"}`)
	b.Apply(again)
	b.seq++
	again.Sequence = b.seq
	got := map[string]string{}
	for name, d := range map[string]message.Delivery{
		"good":      b.delivery("ann", `{"verb":"cancel","id":"x"}`),
		"another's": b.delivery("ann", `{"verb":"cancel","id":"x","signedBy":"ops"}`),
		"unsigned":  b.delivery("", `{"verb":"cancel","id":"x"}`),
		"malformed": b.delivery("ops", `{"verb":"cancel"}`),
		"again":     again,
	} {
		b.Apply(d)
		if _, why := b.Judge(d); why != nil {
			got[name] = why.Code
		}
	}
	want := map[string]string{"another's": message.CodePolicy, "unsigned": message.CodeUnsigned, "malformed": message.CodeMalformed, "again": CodeRepeated}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
