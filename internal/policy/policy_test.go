package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

const policyMachine = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"

func writePolicy(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const samplePolicy = `# who may ask what
signers:
  soar:
    comment: '^INC-[0-9]+ '
    ticket_required: true
    machines_per_hour: 20
  lab:
    machines:
      - 0000000000000000000000000000000000000001
      - "ABCDEF0000000000000000000000000000000002"
  ann: {}
default:
  machines_per_hour: 1
`

func TestPolicyMistakes(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := pair.Seed()
	seed := string(secret)
	for _, c := range []struct{ text, want string }{ // want: parts of the mistakes in order, with a bar between
		{samplePolicy, ""},
		{"default: {}\n", ""},
		{"{signers: {a: {ticket_required: true}}}", ""},
		{"", "line 1: nobody may ask anything"},
		{"# nothing\n", "line 1: nobody may ask anything"},
		{"- a\n", "line 1: expected lines of the form key: value"},
		{"default: {}\nsigner:\n  a: {}\n", "line 2: unknown key signer; there are"},
		{"signers:\n", "line 1: expected lines"},
		{"signers:\n  a:\n", "line 2: expected lines"},
		{"signers:\n  a: everything\n", "line 2: expected lines"},
		{"signers:\n  a: {}\n  b: {}\n  a: {}\n", "line 4: a is there twice, first in line 2"},
		{"default: {}\n---\ndefault: {}\n", "line 3: a second document"},
		{
			"default:\n  comment: '('\n  ticket_required: maybe\n  machines_per_hour: 0\n  machines: []\n  more: 1\n",
			"line 2: comment must be|line 3: ticket_required must be|line 4: machines_per_hour must be|line 5: machines must be|line 6: unknown key more",
		},
		{"default:\n  comment:\n", "line 2: comment must be"},
		{"default:\n  comment: ''\n", "line 2: comment must be"},
		{"default:\n  machines_per_hour: 1501\n", "line 2: machines_per_hour must be a whole number from 1 to 1500"},
		{"default:\n  approvals: {required: 2, by: [ann, ben], within: 4h}\n", ""},
		{"default:\n  approvals: {required: 1, by: [ann], within: 4h}\n  operate: perhaps\n", "line 3: operate must be"},
		{"default:\n  approvals:\n    required: 0\n    by: []\n    within: soon\n    unless: friday\n", "line 3: approvals: required must be a whole number from 1 to 5|line 4: approvals: by must be a list|line 5: approvals: within must be a duration|line 6: approvals: unknown key unless"},
		{"default:\n  approvals: {required: 6, by: [ann], within: 169h}\n", "required must be|within must be"},
		{"default:\n  approvals: {required: 1.5, by: ann, within: 0s}\n", "required must be|by must be|within must be"},
		{"default:\n  approvals: {required: 3, by: [ann, ben], within: 4h}\n", "line 2: approvals: required is 3, and by names 2"},
		{"default:\n  approvals: {required: 1, by: [ann]}\n", "line 2: approvals: within is missing"},
		{"default:\n  approvals: {required: 1, by: [ann, [ben], ann, \" \"], within: 4h}\n", "by must be a list|by names ann twice|by must be a list"},
		{"default:\n  approvals: {required: 1, by: [" + seed + "], within: 4h}\n", "by has a seed"},
		{"default:\n  approvals: [ann, ben]\n", "line 2: expected lines"},
		{"default:\n  approvals:\n", "line 2: expected lines"},
		{"default:\n  machines_per_hour: 1.5\n", "line 2: machines_per_hour must be"},
		{"default:\n  machines_per_hour: [1]\n", "line 2: machines_per_hour must be"},
		{"default: {lanes: [bulk, normal], urgent_per_hour: 3}\n", ""},
		{"default:\n  urgent_per_hour: 0\n  lanes: urgent\n", "line 2: urgent_per_hour must be a whole number from 1 to 1500|line 3: lanes must be a list of urgent, normal, bulk"},
		{"default:\n  lanes: [urgent, fast]\n", "line 2: lanes: there is no lane \"fast\": it is one of urgent, normal, bulk"},
		{"default:\n  machines: 0000000000000000000000000000000000000001\n", "line 2: machines must be a list"},
		{"default:\n  machines:\n    - 1\n    - [0000000000000000000000000000000000000001]\n", "line 3: a machine id is not|line 4: a machine id is not"},
		{"signers:\n  a: &x {ticket_required: true}\n  b: *x\n", "line 2: expected lines|line 3: expected lines"},
		{"signers:\n  ? [a]\n  : {}\n", "line 3: not YAML"},
		{"signers:\n  a: {}\n <<: {}\n", "line 3: "},
		{"signers:\n  " + seed + ": {}\n", "line 2: is a seed"},
		{"signers:\n  \"\": {}\n", "line 2: a signer without a name"},
		{"default:\n  " + seed + ": 1\n", "line 2: unknown key (a seed)"},
		{"default: \"x\n", "not YAML"},
	} {
		path := writePolicy(t, c.text)
		_, err := Load(path, nil)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.text, err)
			}
			continue
		}
		var all []error
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			all = joined.Unwrap()
		}
		want := strings.Split(c.want, "|")
		if len(all) != len(want) {
			t.Errorf("%q: got %v, want %q", c.text, err, want)
			continue
		}
		for i, w := range want {
			if got := all[i].Error(); !strings.HasPrefix(got, path+", ") || !strings.Contains(got, w) || strings.Contains(got, seed) {
				t.Errorf("%q: got %q, want %q", c.text, got, w)
			}
		}
	}
}

// TestPolicySample: the file that the documentation shows is good.
func TestPolicySample(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, _ := strings.Cut(string(page), "```yaml\n")
	sample, _, _ = strings.Cut(sample, "```")
	p, err := Load(writePolicy(t, sample), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, r := p.Rule("soar", ""); r.PerHour != 20 || !r.ticket || r.comment == nil {
		t.Errorf("%+v", r)
	}
}

func TestPolicyLanes(t *testing.T) {
	p, err := Load(writePolicy(t, "signers:\n  soar: {lanes: [normal, bulk]}\ndefault: {}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, soar := p.Rule("soar", "")
	_, others := p.Rule("ann", "")
	for _, l := range message.Lanes() {
		if why := soar.ForbidsLane("soar", l); (why == "") != (l != message.LaneUrgent) {
			t.Errorf("soar on %s: %q", l, why)
		}
		if why := others.ForbidsLane("ann", l); why != "" {
			t.Errorf("ann on %s: %q", l, why)
		}
	}
}

func TestPolicyFileMustBeReadable(t *testing.T) {
	large := writePolicy(t, "default: {}\n"+strings.Repeat("#", maxPolicy))
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir(), large, "/dev/zero"} {
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	var none *Policy
	if none.Err() != nil {
		t.Error("no policy has a mistake")
	}
}

func TestPolicyRules(t *testing.T) {
	const key = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	p, err := Load(writePolicy(t, samplePolicy), nil)
	if err != nil {
		t.Fatal(err)
	}
	without, err := Load(writePolicy(t, "signers:\n  ann: {}\n  "+key+": {machines_per_hour: 3}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := message.Request{MachineID: strings.Repeat("0", 39) + "1", Comment: "INC-4711 cleaned", Ticket: "INC-4711"}
	for _, c := range []struct {
		name   string
		policy *Policy
		signer string
		change func(*message.Request)
		want   string // part of why not; "" if it may
		rate   int
	}{
		{"all as asked", p, "soar", func(*message.Request) {}, "", 20},
		{"another comment", p, "soar", func(r *message.Request) { r.Comment = "cleaned INC-4711 " }, "comment: does not match ^INC-", 20},
		{"a blank ticket", p, "soar", func(r *message.Request) { r.Ticket = " \t" }, "ticket: is required", 20},
		{"a ticket that shows nothing", p, "soar", func(r *message.Request) { r.Ticket = "\u200b\u2060-" }, "ticket: is required", 20},
		{"a comment with its like in another line", p, "soar", func(r *message.Request) { r.Comment = "x\nINC-1 y" }, "comment: does not match", 20},
		{"no ticket", p, "soar", func(r *message.Request) { r.Ticket = "" }, "ticket: is required", 20},
		{"any machine", p, "soar", func(r *message.Request) { r.MachineID = policyMachine }, "", 20},
		{"a machine in the list", p, "lab", func(r *message.Request) { r.Comment, r.Ticket = "x", "" }, "", 0},
		{"one written in capitals", p, "lab", func(r *message.Request) { r.MachineID = "abcdef0000000000000000000000000000000002" }, "", 0},
		{"a machine that is not", p, "lab", func(r *message.Request) { r.MachineID = policyMachine }, "machineId: is none of those", 0},
		{"no rule at all", p, "ann", func(r *message.Request) { r.Comment, r.Ticket = "x", "" }, "", 0},
		{"by default", p, "somebody", func(r *message.Request) { r.Ticket = "" }, "", 1},
		{"not named, no default", without, "somebody", func(*message.Request) {}, "names no signer somebody and has no default", 0},
		{"case matters", without, "Ann", func(*message.Request) {}, "names no signer Ann", 0},
		{"named by nkey", without, "bob", func(*message.Request) {}, "", 3},
	} {
		req := ask
		req.SignedBy = c.signer
		c.change(&req)
		header := "another key"
		if c.signer == "bob" {
			header = key
		}
		_, rule := c.policy.Rule(c.signer, header)
		if got := rule.Forbids(req); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if rule != nil && rule.PerHour != c.rate {
			t.Errorf("%s: %d machines an hour, want %d", c.name, rule.PerHour, c.rate)
		}
	}
	who, _ := without.Rule("bob", key)
	again, _ := without.Rule("carol", key)
	other, _ := p.Rule("somebody", key)
	if diff := cmp.Diff([]string{key, key, "somebody"}, []string{who, again, other}); diff != "" {
		t.Errorf("counted by: %s", diff)
	}
}

func TestPolicyIsReadAnew(t *testing.T) {
	path := writePolicy(t, "default: {machines_per_hour: 1}\n")
	p, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		text string
		rate int
		bad  bool
	}{
		{"default: {machines_per_hour: 22}\n", 22, false},
		{"default: {machines_per_hours: 333}\n", 22, true},
		{"", 22, true},
		{"remove", 22, true},
		{"default: {machines_per_hour: 55555}\n", 22, true},
		{"default: {machines_per_hour: 666}\n", 666, false},
	} {
		if c.text == "remove" {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, []byte(c.text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, rule := p.Rule("a", "")
		if err := p.Err(); rule.PerHour != c.rate || (err != nil) != c.bad {
			t.Errorf("%d: %d machines an hour (want %d), %v", i, rule.PerHour, c.rate, err)
		}
	}
}

// FuzzPolicy: whatever is in the file there are mistakes, each in one line with its place, or rules that can be asked.
func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		samplePolicy, "default: {}", "{signers: {a: {machines: [x, 1e5, null]}}}", "? signers\n: {a: {}}\n", "signers: &a\n  b: *a\n", "default: !!map {}\n",
		"signers:\n  <<: {a: {}}\n", "---\n...\n---\ndefault: {}", "default:\n  comment: |\n    a\n    b\n", "signers: {1: {}, true: {}, ~: {}}", "\xff: {}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules, mistakes := parsePolicy([]byte(text))
		for _, m := range mistakes {
			var line int
			if _, err := fmt.Sscanf(m.Error(), "line %d: ", &line); err != nil || line < 1 {
				t.Errorf("%q: %v", text, m)
			}
		}
		if len(mistakes) > 0 {
			return
		}
		if rules.others == nil && len(rules.signers) == 0 {
			t.Errorf("%q: no rules and no mistake", text)
		}
		for who, rule := range rules.signers {
			if rule == nil || rule.PerHour < 0 || rule.PerHour > maxPerHour || rule.machines != nil && len(rule.machines) == 0 {
				t.Errorf("%q: %q may %+v", text, who, rule)
			}
			_ = rule.Forbids(message.Request{SignedBy: who, Comment: text})
		}
	})
}

// TestPolicyForNobody: a rule for a signer that there is not is a mistake, when the file is read first and whenever it or the
// signers change; what was read before stays in force.
func TestPolicyForNobody(t *testing.T) {
	ann, bob := userKey(t), userKey(t)
	list := filepath.Join(t.TempDir(), "signers")
	trust := func(text string) {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust(ann + " ann\n")
	signers, err := message.SignersFile(list)
	if err != nil {
		t.Fatal(err)
	}
	path := writePolicy(t, "signers:\n  ann: {}\n  bob: {}\n  "+bob+": {}\n")
	_, err = Load(path, signers)
	want := path + ", line 3: there is no trusted signer bob; there are ann\n" + path + ", line 4: there is no trusted signer " + bob + "; there are ann"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	say := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	say("signers:\n  ann: {machines_per_hour: 1}\n  " + ann + ": {machines_per_hour: 1}\n")
	p, err := Load(path, signers)
	if err != nil {
		t.Fatal(err)
	}
	check := func(step string, rate int, wrong string) {
		t.Helper()
		_, rule := p.Rule("ann", ann)
		if err := p.Err(); rule.PerHour != rate || (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %d machines an hour (want %d), %v", step, rule.PerHour, rate, err)
		}
	}
	check("both by name and by nkey", 1, "")
	say("signers:\n  bob: {}\n  ann: {machines_per_hour: 22}\n")
	check("a rule for somebody who is not trusted", 1, "line 2: there is no trusted signer bob; there are ann")
	trust(ann + " ann\n" + bob + " bob\n")
	check("who then is, while the policy stays as it is", 22, "")
	trust(ann + " ann\n")
	check("and is withdrawn", 22, "line 2: there is no trusted signer bob")
}

func userKey(t *testing.T) string {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestApproversMustBeThere: whoever is to approve is trusted, and there are enough besides the signer himself, whose second key
// makes him no other.
func TestApproversMustBeThere(t *testing.T) {
	ann, ben, soar, second := userKey(t), userKey(t), userKey(t), userKey(t)
	signers, err := message.ParseSigners("ann=" + ann + ",ben=" + ben + ",soar=" + soar + ",soar=" + second)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"signers:\n  soar:\n    approvals: {required: 2, by: [ann, ben], within: 4h}\n":        "",
		"default:\n  approvals: {required: 3, by: [ann, ben, soar], within: 4h}\n":             "",
		"signers:\n  soar:\n    approvals: {required: 2, by: [ann, carl, soar], within: 4h}\n": "line 3: there is no trusted signer carl; there are ann, ben, soar",
		"signers:\n  soar:\n    approvals: {required: 2, by: [ann, soar], within: 4h}\n":       "line 3: approvals: required is 2, and by names 1 besides soar, who can't approve his own; name more, or require less",
		"signers:\n  " + second + ":\n    approvals: {required: 1, by: [soar], within: 4h}\n":  "line 3: approvals: required is 1, and by names 0 besides soar, who can't approve his own; name more, or require less",
		"default:\n  approvals: {required: 1, by: [" + ann + "], within: 4h}\n":                "line 2: there is no trusted signer " + ann + "; there are ann, ben, soar",
	} {
		path := writePolicy(t, text)
		p, err := Load(path, signers)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != path+", "+want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if err == nil && (!p.Approver("ben") || p.Approver("eve")) {
			t.Errorf("%q: who approves?", text)
		}
	}
}
