package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// asksUntil publishes a request of somebody's that has its own end.
func (o *office) asksUntil(by, id string, n int, fields ...field) {
	o.t.Helper()
	data := payload(id, n, fields...)
	key, signature, err := message.Sign([]byte(o.people[by].seed), o.broker.Names().Subject, data)
	o.must(err)
	o.publish(id, message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}, data)
}

// What people deny, or approve too late, needs no call to end: it ends within a minute though nothing is pulled.
func TestUnapprovedEndsThoughNothingIsPulled(t *testing.T) {
	for name, hold := range map[string]func(o *office){
		"paused": func(o *office) { o.must(o.shared.Pause(o.ctx, broker.Pause{Reason: "freeze"})) },
		"a 429 of two hours": func(o *office) {
			o.api.Inject(defendersim.Fault{Op: "unrestrict", Status: 429, RetryAfter: 2 * time.Hour, Times: 1})
			o.asks("ann", "met", 99)
		},
		"its batch is paused": func(o *office) { o.says("soar", message.Order{Verb: message.VerbPause, Batch: "b"}) },
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, oneOfTwo, setup{ordered: true, limits: budget.Limits(100, 1500)}, func(o *office) {
				denied := o.asks("soar", "denied", 1, inBatch("b"))
				o.asks("soar", "late", 2, inBatch("b"))
				o.asksUntil("soar", "old", 3, inBatch("b"), expiresIn(4*time.Minute))
				for _, id := range []string{"denied", "late", "old"} {
					o.until(id+" to await approval", time.Minute, func() bool { e := o.entry(id); return e.Awaits() })
				}
				hold(o)
				o.passes(2 * time.Second)
				never := o.asks("soar", "never taken", 4, inBatch("b"))
				o.passes(time.Minute)
				calls := len(o.api.Calls())
				o.says("ann", deny("denied", denied))
				o.says("ann", deny("never taken", never))
				for _, c := range []struct {
					id, want string
					at       time.Time
				}{
					{"denied", "rejected denied", time.Now()},
					{"never taken", "rejected denied", time.Now()},
					{"old", "rejected expired", o.entry("old").Approval.ExpiresAt},
					{"late", "rejected approvalExpired", o.entry("late").Approval.ExpiresAt},
				} {
					o.until(c.id+" to end", time.Until(c.at)+time.Minute, func() bool { _, ended := o.final(c.id); return ended })
					o.wantFinal(c.id, c.want)
					if time.Now().Before(c.at) || len(o.dead(c.id)) != 1 {
						t.Errorf("%s ended %v before its time, with %d dead letters", c.id, time.Until(c.at), len(o.dead(c.id)))
					}
				}
				if n := len(o.api.Calls()) - calls; n != 0 {
					t.Errorf("%d calls meanwhile", n)
				}
				o.must(o.shared.Resume(o.ctx))
				o.settled(3 * time.Hour)
			})
		})
	}
}

// A dead letter whose publisher has died is published though nothing is pulled.
func TestDeadLetterOfTheDead(t *testing.T) {
	for _, f := range []fault{{at: atDecision, done: true, dies: true, times: 1}, {at: atLetter, dies: true, times: 1}, {at: atFinal, dies: true, times: 1}} {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			inOffice(t, oneOfTwo, setup{ordered: true, replicas: 2}, func(o *office) {
				o.asks("soar", "r", 1)
				o.awaits(1)
				o.must(o.shared.Pause(o.ctx, broker.Pause{Reason: "freeze"}))
				o.passes(2 * time.Second)
				o.faults.inject(f)
				until := o.entry("r").Approval.ExpiresAt
				o.until("the death", time.Until(until)+time.Minute, func() bool { return o.living() == 1 })
				o.until("the end", 2*time.Minute, func() bool { _, ended := o.final("r"); return ended })
				o.wantFinal("r", "rejected approvalExpired")
				o.must(o.shared.Resume(o.ctx))
				o.settled(5 * time.Minute)
			})
		})
	}
}
