package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// on publishes a request on a lane, signed by s if it has a seed.
func (w *world) on(l message.Lane, s signer, id string, n int) uint64 {
	w.t.Helper()
	data, h := payload(id, n, expiresIn(24*time.Hour)), message.Header{}
	if s.seed != "" {
		key, signature, err := message.Sign([]byte(s.seed), l.Subject(w.broker.Names().Subject), data)
		w.must(err)
		h = message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}
	}
	stored, err := w.broker.Publish(w.ctx, l, h, data)
	w.must(err)
	w.published = append(w.published, request{stored.Sequence, id})
	return stored.Sequence
}

// spend uses the minute up evenly, so that calls come free one by one from now on.
func (w *world) spend(limit int) {
	w.t.Helper()
	for range limit {
		if _, err := w.replicas[0].budget.Take(w.ctx, "lookup"); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(time.Minute / time.Duration(limit))
	}
}

// What a signer may not ask on a lane is rejected, and his urgent requests of an hour are counted over all replicas.
func TestPolicyOfLanes(t *testing.T) {
	ann, _, _, rules := governed(t, "signers:\n  ann: {lanes: [urgent, normal], urgent_per_hour: 3}\n")
	inWorld(t, setup{replicas: 2, rules: rules}, func(w *world) {
		w.on(message.LaneBulk, ann, "bulk", 1)
		for n := range 8 {
			w.on(message.LaneUrgent, ann, fmt.Sprint("urgent", n), 10+n)
			w.on(message.LaneNormal, ann, fmt.Sprint("normal", n), 30+n)
		}
		w.settled(5 * time.Minute)
		w.wantFinal("bulk", "rejected policy")
		ended := map[string]int{}
		for n := range 8 {
			w.wantFinal(fmt.Sprint("normal", n), "succeeded")
			r, _ := w.final(fmt.Sprint("urgent", n))
			ended[r.Outcome]++
		}
		if ended["succeeded"] != 3 || ended["rejected"] != 5 {
			t.Errorf("of eight urgent requests, with three allowed: %v\n%s", ended, w.dump())
		}
	})
}

// A message that may not be on its lane moves nothing, and leaves the request that it names as it is.
func TestNobodyMovesARequestToALaneThatIsNotHis(t *testing.T) {
	ann, _, _, rules := governed(t, "signers:\n  ann: {lanes: [bulk]}\n")
	inWorld(t, setup{rules: rules}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 404, Code: "ResourceNotFound"})
		w.on(message.LaneBulk, ann, "waits", 1)
		w.passes(time.Second) // for the second 404
		moves := w.on(message.LaneUrgent, ann, "waits", 1)
		w.passes(10 * time.Second)
		w.published[1].id = w.ref(moves)
		w.settled(10 * time.Minute)
		if r := w.wantFinal("waits", "succeeded"); r.Lane != message.LaneBulk {
			t.Errorf("called by the lane %s", r.Lane)
		}
		w.wantPosts(1, 2)
		if r := w.wantFinal(w.ref(moves), "rejected policy"); r.Lane != message.LaneUrgent || r.ClaimedID != "waits" {
			t.Errorf("the message that moves it: %+v", r)
		}
	})
}

// The same request on urgent is the same request, called once, at once, and says so.
func TestMovedUp(t *testing.T) {
	inWorld(t, setup{limits: budget.Limits(60, 0), urgent: 5, ownSlots: 3}, func(w *world) {
		for n := range 200 {
			w.on(message.LaneBulk, signer{}, fmt.Sprint("r", n), n)
		}
		w.passes(10 * time.Second)
		moved := time.Now()
		w.on(message.LaneUrgent, signer{}, "r150", 150)
		w.passes(5 * time.Second)
		w.wantPosts(150, 1)
		w.settled(20 * time.Minute)
		w.wantPosts(150, 1)
		if r := w.wantFinal("r150", "succeeded"); r.Lane != message.LaneUrgent || r.FinishedAt.Sub(moved) > 5*time.Minute {
			t.Errorf("lane %s, %v after it was moved", r.Lane, r.FinishedAt.Sub(moved))
		}
		if r := w.wantFinal("r199", "succeeded"); r.Lane != message.LaneBulk {
			t.Errorf("lane %s", r.Lane)
		}
		if records := w.recorded("r150", ledger.AuditDecided); len(records) != 1 || records[0].Lane != message.LaneUrgent {
			t.Errorf("audit records %+v", records)
		}
	})
}

// An urgent request waits for no company before it is held against the machine's newer actions.
func TestUrgentWaitsForNoCompany(t *testing.T) {
	old := func(c *remediation.SubmitConfig) { c.GuardAfter = 0 }
	inWorld(t, setup{limits: budget.Limits(60, 0), urgent: 5, ownSlots: 3, submit: old}, func(w *world) {
		w.spend(60)
		for n := range 20 {
			w.on(message.LaneNormal, signer{}, fmt.Sprint("n", n), n)
		}
		w.passes(3 * time.Second)
		w.on(message.LaneUrgent, signer{}, "u", 50)
		w.passes(5 * time.Second)
		w.wantPosts(50, 1)
		if n := len(w.called("unrestrict")); n > 5 { // its look serves who comes within seconds
			t.Errorf("%d calls: the others did not gather", n)
		}
		w.settled(10 * time.Minute)
	})
}
