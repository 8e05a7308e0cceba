package remediation_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// A signer whose key is withdrawn gets nothing more: what waits is not called for. But what may have been called for is
// followed to its end and told under its own id, for the machine may be released.
func TestWithdrawnSigner(t *testing.T) {
	for name, c := range map[string]struct {
		fault defendersim.Fault
		dies  fault
		want  string
		posts int
	}{
		"while it waits": {
			fault: defendersim.Fault{Op: "unrestrict", Times: 1, Status: 429, RetryAfter: time.Minute}, want: "rejected unknownSigner", posts: 1,
		},
		"after the call, whose answer died": {dies: fault{at: atRecord, dies: true, times: 1}, want: "succeeded", posts: 1},
		"after a call that did not take place": {
			fault: defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503}, want: "rejected unknownSigner", posts: 1,
		},
		"after the intent, before the call": {dies: fault{at: atMachine, dies: true, times: 1}, want: "rejected unknownSigner"},
	} {
		t.Run(name, func(t *testing.T) {
			ann, bob := newSigner(t), newSigner(t)
			file := filepath.Join(t.TempDir(), "signers")
			trust := func(lines string) {
				if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
					t.Error(err)
				}
			}
			trust(ann.public + " ann\n" + bob.public + " bob\n")
			rules := func(r *remediation.Submitter) {
				var err error
				if r.Rules.Signers, err = message.SignersFile(file); err != nil {
					t.Error(err)
				}
			}
			inWorld(t, setup{rules: rules}, func(w *world) {
				if c.fault.Op != "" {
					w.api.Inject(c.fault)
				}
				if c.dies.times > 0 {
					w.faults.inject(c.dies)
				}
				w.askAs(ann, "r1", 1)
				w.passes(2 * time.Second)
				trust(bob.public + " bob\n")
				w.start()
				w.settled(10 * time.Minute)
				r := w.wantFinal("r1", c.want)
				if r.SignedBy != "ann" {
					t.Errorf("signed by %q", r.SignedBy)
				}
				w.wantPosts(1, c.posts)
				w.askAs(ann, "r2", 2)
				w.settled(time.Minute)
				w.wantPosts(2, 0)
			})
		})
	}
}

// What was refused for expiring too late does not become good by waiting, whoever publishes the same bytes, and when.
func TestRefusedSignatureStaysRefused(t *testing.T) {
	ann := newSigner(t)
	rules := func(r *remediation.Submitter) {
		var err error
		if r.Rules.Signers, err = message.ParseSigners("ann=" + ann.public); err != nil {
			t.Error(err)
		}
	}
	inWorld(t, setup{rules: rules, free: true}, func(w *world) {
		data := payload("r1", 1, expiresIn(7*24*time.Hour+time.Hour))
		key, signature, err := message.Sign([]byte(ann.seed), w.broker.Names().Subject, data)
		w.must(err)
		early := message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}
		first := w.publish("", early, data)
		w.settled(time.Minute)
		w.wantFinal(w.ref(first), "rejected expiresTooLate")
		w.askAs(ann, "r1", 1) // the same for a day, which is carried out and forgotten
		w.settled(time.Hour)
		w.wantFinal("r1", "succeeded")
		w.replicas[0].stop()
		w.forget("e.")
		w.passes(2 * time.Hour)
		w.start()
		early[message.HeaderSignature] = []string{signature + "=="} // the same signature, written otherwise
		again := w.publish("", early, data)
		w.settled(time.Hour)
		w.wantFinal(w.ref(again), "rejected expiresTooLate")
		replayed := w.replayLetter("", w.lastDead(w.ref(first)))
		w.settled(time.Hour)
		w.wantFinal(w.ref(replayed), "rejected expiresTooLate")
		w.wantPosts(1, 1)
	})
}
