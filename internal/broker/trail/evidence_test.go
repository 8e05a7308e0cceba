package trail

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

const controlSubject = "remediation.control"

// person signs.
type person struct{ name, key, seed string }

func newPerson(t *testing.T, name string) person {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	return person{name, key, string(seed)}
}

func (p person) verdict(t *testing.T, o message.Order) ledger.Verdict {
	t.Helper()
	payload, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	key, signature, err := message.Sign([]byte(p.seed), controlSubject, payload)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Verdict{By: p.name, Signer: key, At: time.Now().UTC(), Message: "C:1", Subject: controlSubject, Order: string(payload), Signature: signature}
}

// TestAuditProvesWhatPeopleSigned: a record is believed that people approved a run only with what they signed, for this run and
// this message, by those who may, and enough of them. A writer that seals its records well is not believed either.
func TestAuditProvesWhatPeopleSigned(t *testing.T) {
	ann, ben, eve := newPerson(t, "ann"), newPerson(t, "ben"), newPerson(t, "eve")
	digest := "sha256:" + strings.Repeat("0", 64)
	yes := message.Order{Verb: message.VerbApprove, ID: "r", Digest: digest}
	signers, err := message.ParseSigners("ann=" + ann.key + ",ben=" + ben.key)
	if err != nil {
		t.Fatal(err)
	}
	record := func() ledger.AuditRecord {
		return ledger.AuditRecord{
			Kind: ledger.AuditAccepted, RequestID: "r", Run: 1, SignedBy: "soar", Signer: eve.key, Outcome: message.Submitted, Attempts: 1, ActionID: "a", DecidedAt: time.Now().UTC(),
			Approval: &ledger.Approval{Required: 2, By: []string{"ann", "ben"}, Digest: digest, Given: []ledger.Verdict{ann.verdict(t, yes), ben.verdict(t, yes)}},
		}
	}
	for name, c := range map[string]struct {
		change  func(r *ledger.AuditRecord)
		signers *message.Signers
		want    string // part of the break; "": whole
	}{
		"as it was":               {func(*ledger.AuditRecord) {}, signers, ""},
		"whose keys is not asked": {func(*ledger.AuditRecord) {}, nil, ""},
		"shortened":               {func(r *ledger.AuditRecord) { *r = r.Shorten() }, signers, ""},
		"one approval":            {func(r *ledger.AuditRecord) { r.Approval.Given = r.Approval.Given[:1] }, nil, "called with 1 approvals of 2"},
		"denied, not called": {func(r *ledger.AuditRecord) {
			no := ann.verdict(t, message.Order{Verb: message.VerbDeny, ID: "r", Digest: digest})
			r.Kind, r.Attempts, r.ActionID, r.Approval.Given, r.Approval.Denied = ledger.AuditDecided, 0, "", nil, &no
		}, signers, ""},
		"one twice":       {func(r *ledger.AuditRecord) { r.Approval.Given[1] = r.Approval.Given[0] }, nil, "counts ann's approval twice"},
		"one who may not": {func(r *ledger.AuditRecord) { r.Approval.Given[1] = eve.verdict(t, yes) }, nil, "counts eve, who may not approve it"},
		"one under another name": {func(r *ledger.AuditRecord) {
			v := eve.verdict(t, yes)
			v.By = "ben"
			r.Approval.Given[1] = v
			r.Signer = ""
		}, signers, "by a key that is not his"},
		"the request's own key":  {func(r *ledger.AuditRecord) { v := eve.verdict(t, yes); v.By = "ben"; r.Approval.Given[1] = v }, nil, "who signed the request himself"},
		"the request's own name": {func(r *ledger.AuditRecord) { r.SignedBy = "ben" }, nil, "who signed the request himself"},
		"whom requestedBy names": {func(r *ledger.AuditRecord) { r.RequestedBy = "BEN" }, nil, "whom requestedBy names"},
		"another request":        {func(r *ledger.AuditRecord) { r.RequestID = "s" }, nil, "of something else"},
		"another run":            {func(r *ledger.AuditRecord) { r.Run = 2 }, nil, "of something else"},
		"another digest":         {func(r *ledger.AuditRecord) { r.Approval.Digest = "sha256:" + strings.Repeat("1", 64) }, nil, "of something else"},
		"another's request": {func(r *ledger.AuditRecord) {
			r.Approval.Given[1] = ben.verdict(t, message.Order{Verb: message.VerbApprove, ID: "r", Digest: digest, Signer: "tool"})
		}, nil, "about somebody else's request"},
		"a client's request": {func(r *ledger.AuditRecord) {
			r.Approval.Given[1] = ben.verdict(t, message.Order{Verb: message.VerbApprove, ID: "r", Digest: digest, Client: "tool"})
		}, nil, "about somebody else's request"},
		"an approval that had expired": {func(r *ledger.AuditRecord) {
			until := time.Now().Add(time.Hour)
			r.Approval.Given[1] = ben.verdict(t, message.Order{Verb: message.VerbApprove, ID: "r", Digest: digest, ExpiresAt: until})
			r.ReceivedAt = until.Add(time.Second)
		}, nil, "had expired"},
		"named as it should": {func(r *ledger.AuditRecord) {
			r.Approval.Given[1] = ben.verdict(t, message.Order{Verb: message.VerbApprove, ID: "r", Digest: digest, Signer: "soar", ExpiresAt: time.Now().Add(time.Hour)})
			r.ReceivedAt = time.Now()
		}, signers, ""},
		"a denial for an approval": {func(r *ledger.AuditRecord) {
			r.Approval.Given[1] = ben.verdict(t, message.Order{Verb: message.VerbDeny, ID: "r", Digest: digest})
		}, nil, "of something else"},
		"an altered order":        {func(r *ledger.AuditRecord) { r.Approval.Given[1].Order += " " }, nil, "counts ben, who has not signed it"},
		"another subject":         {func(r *ledger.AuditRecord) { r.Approval.Given[1].Subject = "other" }, nil, "counts ben, who has not signed it"},
		"without what was signed": {func(r *ledger.AuditRecord) { r.Approval.Given[1].Order = "" }, nil, "counts ben, who has not signed it"},
		"an order that nobody signed": {func(r *ledger.AuditRecord) {
			v := ann.verdict(t, yes)
			*r = ledger.AuditRecord{Kind: ledger.AuditOrdered, Message: "C:1", Signer: ben.key, Subject: v.Subject, Order: v.Order, Signature: v.Signature}
		}, nil, "its signer has not signed"},
		"an order": {func(r *ledger.AuditRecord) {
			v := ann.verdict(t, yes)
			*r = ledger.AuditRecord{Kind: ledger.AuditOrdered, Message: "C:1", Signer: ann.key, Subject: v.Subject, Order: v.Order, Signature: v.Signature}
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			j := &journal{t: t}
			w := j.open("w-1")
			r := record()
			c.change(&r)
			payload, err := w.Next(j.now(), r, 1<<20)
			j.store(w, payload, err)
			chain := NewChain(1, Kept{}, nil)
			chain.Signers = c.signers
			for _, m := range j.all {
				err = chain.Add(m)
			}
			if got := fmt.Sprint(err); (err == nil) != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
