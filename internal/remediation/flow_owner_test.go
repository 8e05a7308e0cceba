package remediation_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// trusting are rules with signers, as WORKER_TRUSTED_SIGNERS names them.
func trusting(list string) func(*remediation.Submitter) {
	return func(r *remediation.Submitter) {
		signers, err := message.ParseSigners(list)
		if err != nil {
			panic(err)
		}
		r.Rules.Signers = signers
	}
}

// trustingFile are rules with a file of signers, and what writes it.
func trustingFile(t *testing.T) (rules func(*remediation.Submitter), trust func(lines string)) {
	file := filepath.Join(t.TempDir(), "signers")
	trust = func(lines string) {
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Error(err)
		}
	}
	return func(r *remediation.Submitter) {
		var err error
		if r.Rules.Signers, err = message.SignersFile(file); err != nil {
			t.Error(err)
		}
	}, trust
}

// finalOf is the one final result of somebody's request.
func (w *world) finalOf(id, owner, want string) message.Result {
	w.t.Helper()
	var all []message.Result
	for _, r := range w.resultsOf(id) {
		if r.Final && whose("", r.SignedBy, r.Client) == whose("", owner, "") {
			all = append(all, r)
		}
	}
	if len(all) != 1 {
		w.t.Fatalf("%s of %s has the final results %+v\n%s", id, owner, all, w.dump())
	}
	got := all[0].Outcome
	if f := all[0].Error; f != nil {
		got += " " + f.Code
	}
	if got != want {
		w.t.Errorf("%s of %s ended %s, want %s\n%s", id, owner, got, want, w.dump())
	}
	return all[0]
}

// The same id by two signers names two requests. Whoever comes first, each is carried out, and the dead letters, message
// ids and repetitions of each are its own.
func TestIDsBelongToTheirSigner(t *testing.T) {
	ann, bob := newSigner(t), newSigner(t)
	inWorld(t, setup{rules: trusting("ann=" + ann.public + " bob=" + bob.public)}, func(w *world) {
		w.share("r1", 2)
		w.askAs(ann, "r1", 1)
		w.askAs(bob, "r1", 2) // another machine: no conflict
		w.share("r2", 2)
		w.askAs(ann, "r2", 3)
		w.askAs(bob, "r2", 4)
		w.settled(10 * time.Minute)
		for _, owner := range []string{"ann", "bob"} {
			for _, id := range []string{"r1", "r2"} {
				if r := w.finalOf(id, owner, "succeeded"); r.MessageID() != id+":final:1:"+owner {
					t.Errorf("message id %s", r.MessageID())
				}
			}
		}
		for n := range 4 {
			w.wantPosts(n+1, 1)
		}
		seq := w.publishedCopies()
		w.settled(10 * time.Minute)
		for n := range 4 {
			w.wantPosts(n+1, 1)
		}
		w.wantOutcomes(w.ref(seq))
	})
}

// publishedCopies publishes all signed requests so far once more, and returns the last one's sequence.
func (w *world) publishedCopies() (last uint64) {
	w.t.Helper()
	for _, again := range w.signed {
		last = w.publish(again.id, again.header, again.data)
	}
	return last
}

// share says that n requests have the comment of an id.
func (w *world) share(id string, n int) {
	if w.sharing == nil {
		w.sharing = map[string]int{}
	}
	w.sharing[commentOf(id)] = n
}

// A signer who may ask nothing can't use up an id of another's.
func TestSignerWithoutRightsUsesUpNoID(t *testing.T) {
	ann, bob, _, rules := governed(t, "signers:\n  ann: {}\n  bob: {machines: [\""+machine(9)+"\"]}\n")
	inWorld(t, setup{rules: rules}, func(w *world) {
		w.share("r1", 2)
		w.askAs(bob, "r1", 1)
		w.settled(time.Minute)
		w.finalOf("r1", "bob", "rejected policy")
		w.askAs(ann, "r1", 1)
		w.askAs(ann, "r2", 2)
		w.askAs(bob, "r2", 3) // with another machine: an idConflict before
		w.settled(10 * time.Minute)
		w.finalOf("r1", "ann", "succeeded")
		w.finalOf("r2", "ann", "succeeded")
		w.finalOf("r2", "bob", "rejected policy")
		w.wantPosts(1, 1)
		w.wantPosts(3, 0)
		if l := w.lastDead("r2"); message.ReadDeadLetter(l.header, l.payload).SignedBy != "bob" {
			t.Errorf("the dead letter does not say whose it is: %v", l.header)
		}
	})
}

// A withdrawn signer's waiting request is not carried out, whoever repeats its id, machine and comment. The other's is.
func TestWithdrawnSignersRequestIsNotRevived(t *testing.T) {
	for name, restarts := range map[string]bool{"the file changed": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			ann, bob := newSigner(t), newSigner(t)
			rules, trust := trustingFile(t)
			trust(ann.public + " ann\n" + bob.public + " bob\n")
			inWorld(t, setup{rules: rules}, func(w *world) {
				w.share("r1", 2)
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 429, RetryAfter: time.Minute})
				w.askAs(ann, "r1", 1)
				w.passes(2 * time.Second)
				w.wantPosts(1, 1)
				trust(bob.public + " bob\n")
				w.passes(3 * time.Second) // the file is looked at again
				if restarts {
					w.replicas[0].stop()
					w.start()
				}
				w.askAs(bob, "r1", 1)
				w.settled(10 * time.Minute)
				w.finalOf("r1", "ann", "rejected unknownSigner")
				w.finalOf("r1", "bob", "succeeded")
				w.wantPosts(1, 2)
			})
		})
	}
}

// What is configured changes while a request is open. The message comes again, and its own run goes on: it is not called
// for a second time under another owner.
func TestOwnersChangeUnderAnOpenRequest(t *testing.T) {
	for name, change := range map[string]func(ann signer) (before, after func(*remediation.Submitter)){
		"renamed": func(ann signer) (before, after func(*remediation.Submitter)) {
			return trusting("ann=" + ann.public), trusting("anna=" + ann.public)
		},
		"signers from now on": func(ann signer) (before, after func(*remediation.Submitter)) {
			return func(*remediation.Submitter) {}, trusting("ann=" + ann.public)
		},
		"no signers any more": func(ann signer) (before, after func(*remediation.Submitter)) {
			return trusting("ann=" + ann.public), func(*remediation.Submitter) {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ann := newSigner(t)
			before, after := change(ann)
			rules := before
			inWorld(t, setup{replicas: -1, rules: func(r *remediation.Submitter) { rules(r) }}, func(w *world) {
				w.faults.inject(fault{at: atRecord, dies: true, times: 1}) // called for, and nobody knows
				w.start()
				w.askAs(ann, "r1", 1)
				w.until("the death", time.Minute, func() bool { return w.living() == 0 })
				rules = after
				w.start()
				w.settled(10 * time.Minute)
				w.wantFinal("r1", "succeeded")
				w.wantPosts(1, 1)
			})
		})
	}
}

// Without signers an id belongs to the client that the message names.
func TestIDsBelongToTheirClient(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		as := func(client string) message.Header {
			return message.Header{message.HeaderClient: {client}}
		}
		w.publish("r1", as("soar"), payload("r1", 1))
		w.publish("r1", as("desk"), payload("r1", 2))
		w.ask("r1", 3)
		w.share("r1", 3)
		bad := w.publish("", as("no name"), payload("r2", 4))
		empty := w.publish("", as(""), payload("r2", 4))
		derived := w.publish("", as("desk"), []byte(fmt.Sprintf(`{"machineId":"%s","comment":"c"}`, machine(5))))
		w.settled(10 * time.Minute)
		for n, owner := range []string{"soar", "desk", ""} {
			r := w.finalOf("r1", owner, "succeeded")
			if want := strings.TrimSuffix("r1:final:1:"+owner, ":"); r.MessageID() != want || r.Client != owner || r.MachineID != machine(n+1) {
				t.Errorf("%s has %s, client %q, for %s", want, r.MessageID(), r.Client, r.MachineID)
			}
		}
		for _, seq := range []uint64{bad, empty} {
			if r := w.wantFinal(w.ref(seq), "rejected malformed"); !strings.Contains(r.Error.Message, "Request-Client") || r.Client != "" || r.ClaimedID != "r2" {
				t.Errorf("%+v", r)
			}
		}
		if r := w.finalOf(w.ref(derived), "desk", "succeeded"); r.MessageID() != w.ref(derived)+":final:1:desk" {
			t.Error(r.MessageID())
		}
	})
}

// With signers the client is echoed, and the id is the signer's.
func TestSignedRequestEchoesItsClient(t *testing.T) {
	ann := newSigner(t)
	inWorld(t, setup{rules: trusting("ann=" + ann.public)}, func(w *world) {
		for _, client := range []string{"soar", "desk"} {
			h, data := w.sign(ann, "r1", 1)
			h[message.HeaderClient] = []string{client}
			w.publish("r1", h, data)
			w.passes(time.Second)
		}
		w.settled(10 * time.Minute)
		if r := w.finalOf("r1", "ann", "succeeded"); r.Client != "soar" || r.MessageID() != "r1:final:1:ann" {
			t.Errorf("%+v", r)
		}
		w.wantPosts(1, 1)
	})
}

// An entry of the version before, under the one key of its id, answers for its signer, whose name may have had to change,
// and keeps its message ids. Another signer's request is another one.
func TestEntryOfTheVersionBeforeAnswersForItsSigner(t *testing.T) {
	for name, called := range map[string]string{"same name": "ann", "a name that is none any more": "Ann of SecOps"} {
		for state, posts := range map[string]int{"waiting": 1, "submitted": 0, "decided": 0} {
			t.Run(name+"/"+state, func(t *testing.T) {
				ann, bob := newSigner(t), newSigner(t)
				value, err := os.ReadFile("testdata/ledger/0.1-audited/" + state + ".txt")
				if err != nil {
					t.Fatal(err)
				}
				id := "golden-" + state
				value = bytes.Replace(value, []byte(`,"print":`), []byte(fmt.Sprintf(`,"signedBy":%q,"signer":%q,"print":`, called, ann.public)), 1)
				value = bytes.Replace(value, []byte(`"source":"REMEDIATION:1"`), []byte(`"source":"REMEDIATION:99"`), 1) // it is repeated
				inWorld(t, setup{replicas: -1, rules: trusting("ann=" + ann.public + " bob=" + bob.public)}, func(w *world) {
					key := ledger.IDKey(w.broker.Names().Stream, message.Request{ID: id}, time.Time{})
					_, err := w.ledgerBucket().Put(w.ctx, key, value)
					w.must(err)
					e, err := ledger.DecodeEntry(ledger.Record{Value: value})
					w.must(err)
					n, err := strconv.ParseInt(e.MachineID, 16, 64)
					w.must(err)
					if state == "submitted" {
						w.api.Put(defendersim.Action{MachineID: e.MachineID, Comment: e.Comment, ID: e.ActionID, Requestor: "the version before"})
					}
					w.share(id, 2)
					w.start()
					w.askAs(ann, id, int(n))
					w.askAs(bob, id, 7)
					w.settled(10 * time.Minute)
					w.finalOf(id, "bob", "succeeded")
					w.wantPosts(7, 1)
					w.wantPosts(int(n), posts)
					want := map[string]string{"decided": "failed actionVanished"}
					if r := w.finalOf(id, called, cmp.Or(want[state], "succeeded")); r.MessageID() != id+":final:1" {
						t.Errorf("its message id became %s", r.MessageID())
					}
				})
			})
		}
	}
}
