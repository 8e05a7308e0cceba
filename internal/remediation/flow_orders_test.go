package remediation_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// order publishes an order, unsigned.
func (w *world) order(format string, args ...any) {
	w.t.Helper()
	_, err := w.broker.PublishOrder(w.ctx, nil, fmt.Appendf(nil, format, args...))
	w.must(err)
}

// inBatch are the fields of a row.
func inBatch(name string) field { return field{"batch", fmt.Sprintf("%q", name)} }

// An order that comes before, between or after each durable write of a request's way has one of two ends: taken back without a
// call, or called, followed to its own end, and told to have been ordered.
func TestCancelAgainstCall(t *testing.T) {
	for _, at := range []point{atIntent, atMachine, atRecord, atAudit, atSubmitted, atAck, atDecision, atFinal, atMark} {
		for _, takes := range []time.Duration{1500 * time.Millisecond, 6 * time.Second} {
			t.Run(fmt.Sprintf("while %s takes %v", at, takes), func(t *testing.T) {
				inWorld(t, setup{replicas: 2, ordered: true}, func(w *world) {
					w.passes(2 * time.Second)
					w.faults.inject(fault{at: at, takes: takes, times: 1})
					w.ask("r1", 1)
					w.until("the point", 5*time.Minute, func() bool { return w.faults.armed() == 0 })
					w.order(`{"verb":"cancel","id":"r1","reason":"why not"}`)
					w.settled(10 * time.Minute)
					w.passes(time.Minute)
					r, _ := w.final("r1")
					switch n := len(w.posts(1)); {
					case n == 0 && r.Outcome == message.Cancelled && r.Error.Code == message.CodeCancelled && len(r.MachineAction) == 0:
					case n == 1 && r.Outcome == message.Succeeded:
					default:
						t.Errorf("%d calls, %+v", n, r)
					}
					late := at == atDecision || at == atFinal || at == atMark // its end is decided, or as good as that
					if c := r.CancelRequested; c == nil && !late || c != nil && (c.Reason != "why not" || c.HTTPStatus != 0) {
						t.Errorf("cancelRequested %+v", c)
					}
					if n := len(w.called("cancel")); n != 0 || len(w.dead("r1")) != 0 {
						t.Errorf("%d actions cancelled, %d dead letters", n, len(w.dead("r1")))
					}
				})
			})
		}
	}
}

// From 5 s after the order is stored nothing that it means is called, whoever calls and however long a call was waited for.
func TestNothingIsCalledLongAfterTheOrder(t *testing.T) {
	api := defendersim.Config{Latency: 2 * time.Second}
	inWorld(t, setup{replicas: 3, ordered: true, api: api, limits: budget.Limits(20, 200), submit: untracked}, func(w *world) {
		for n := range 60 {
			w.ask(fmt.Sprint("r", n), n, inBatch("b"))
		}
		w.until("the first calls", time.Minute, func() bool { return len(w.called("unrestrict")) > 10 })
		w.order(`{"verb":"cancel","batch":"b"}`)
		stored := time.Now()
		w.settled(75 * time.Second)
		for _, c := range w.called("unrestrict") {
			if c.At.Sub(stored) > 5*time.Second {
				t.Errorf("a call %v after the order", c.At.Sub(stored))
			}
		}
		called, back := 0, 0
		for n := range 60 {
			switch r, _ := w.final(fmt.Sprint("r", n)); r.Outcome {
			case message.Submitted:
				called++
				w.wantPosts(n, 1)
			case message.Cancelled:
				back++
				w.wantPosts(n, 0)
			}
		}
		if called+back != 60 || back < 20 {
			t.Errorf("%d called, %d taken back", called, back)
		}
	})
}

// Whatever a request waits for, it ends within a minute of the order, and costs no call.
func TestCancelEndsWhatWaits(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   setup
		begin func(w *world)
	}{
		{"paused", setup{}, func(w *world) {
			w.must(w.shared.Pause(w.ctx, broker.Pause{Reason: "freeze"}))
			w.passes(time.Second)
		}},
		{"a 429 of two hours", setup{limits: budget.Limits(100, 1500)}, func(w *world) {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Status: 429, RetryAfter: 2 * time.Hour, Times: 1})
			w.ask("met", 99)
			w.passes(time.Second)
		}},
		{"the hour is used up", setup{limits: budget.Limits(0, 10)}, func(w *world) {
			for n := range 12 {
				w.ask(fmt.Sprint("fills", n), 100+n)
			}
			w.passes(time.Minute)
		}},
		{"its batch is paused", setup{}, func(w *world) {
			w.order(`{"verb":"pause","batch":"b"}`)
			w.order(`{"verb":"pause","batch":"c"}`)
			w.passes(2 * time.Second)
		}},
		{"its machine is busy", setup{api: defendersim.Config{Latency: 20 * time.Minute}}, func(w *world) {
			w.ask("holds", 1)
			w.ask("holds too", 2)
			w.passes(time.Second)
		}},
		{"no token", setup{}, func(w *world) {
			w.tokens.setDown(true)
			w.ask("met", 99)
			w.passes(time.Second)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set.ordered, c.set.submit = true, func(s *remediation.SubmitConfig) { s.Track, s.Timeout = false, time.Hour }
			inWorld(t, c.set, func(w *world) {
				w.passes(2 * time.Second)
				c.begin(w)
				w.ask("by id", 1, inBatch("b"))
				w.ask("stays", 2, inBatch("c"))
				w.passes(3 * time.Second)
				calls := len(w.api.Calls())
				w.order(`{"verb":"cancel","id":"by id","reason":"wrong machine"}`)
				w.until("the end", time.Minute, func() bool { _, ok := w.final("by id"); return ok })
				if r := w.wantFinal("by id", "cancelled cancelledByRequest"); r.CancelRequested == nil || r.Attempts != 0 || r.Batch != "b" {
					t.Errorf("%+v", r)
				}
				w.order(`{"verb":"cancel","batch":"b"}`)
				w.passes(2 * time.Second)
				w.ask("by batch", 3, inBatch("b")) // it comes later
				w.until("the end", time.Minute, func() bool { _, ok := w.final("by batch"); return ok })
				w.wantFinal("by batch", "cancelled batchCancelled")
				if n := len(w.api.Calls()) - calls; n != 0 {
					t.Errorf("%d calls meanwhile", n)
				}
				if _, ended := w.final("stays"); ended {
					t.Error("another request ended too")
				}
			})
		})
	}
}

// A call that was under way when the order came, and did not take place, ends within a minute though nothing is pulled any more.
func TestCancelEndsWhatWasInHand(t *testing.T) {
	inWorld(t, setup{ordered: true, limits: budget.Limits(100, 1500)}, func(w *world) {
		w.passes(2 * time.Second)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Status: 429, RetryAfter: 2 * time.Hour, Latency: 10 * time.Second, Times: 1})
		w.ask("r1", 1)
		w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateCalled })
		w.order(`{"verb":"cancel","id":"r1"}`)
		w.passes(8 * time.Second)
		if _, ended := w.final("r1"); ended {
			t.Error("it ended before its call was answered")
		}
		w.until("the end", time.Minute, func() bool { _, ok := w.final("r1"); return ok })
		w.wantFinal("r1", "cancelled cancelledByRequest")
		w.wantPosts(1, 1)
	})
}

// What was ordered while a call was waited for is asked for once more right before it.
func TestOrderWhileACallIsWaitedFor(t *testing.T) {
	inWorld(t, setup{ordered: true}, func(w *world) {
		w.passes(2 * time.Second)
		w.tokens.setSlow(8 * time.Second)
		w.ask("r1", 1)
		w.passes(time.Second)
		w.order(`{"verb":"cancel","id":"r1"}`)
		w.settled(time.Minute)
		w.wantFinal("r1", "cancelled cancelledByRequest")
		w.wantPosts(1, 0)
	})
}

// The queue is read anew at each order, which may be about a message that was passed over.
func TestEachOrderReadsTheQueueAnew(t *testing.T) {
	inWorld(t, setup{ordered: true}, func(w *world) {
		w.must(w.shared.Pause(w.ctx, broker.Pause{Reason: "freeze"}))
		w.passes(2 * time.Second)
		w.ask("r1", 1)
		w.ask("r2", 2)
		w.order(`{"verb":"cancel","id":"r2"}`)
		w.ends("r2")
		w.passes(10 * time.Second)
		w.order(`{"verb":"cancel","id":"r1"}`)
		w.ends("r1")
		w.wantPosts(1, 0)
	})
}

// A cancelled id stays ended, whoever has the message, and an order about an id that nobody knows waits for it.
func TestCancelledIDStaysEnded(t *testing.T) {
	inWorld(t, setup{ordered: true}, func(w *world) {
		w.order(`{"verb":"cancel","id":"r1"}`)
		w.passes(10 * time.Minute)
		w.ask("r1", 1)
		w.ends("r1")
		w.replicas[0].stop()
		w.start()
		for range 3 {
			w.ask("r1", 1)
		}
		w.passes(10 * time.Minute)
		w.ask("r1", 1)
		w.passes(time.Minute)
		w.wantOutcomes("r1", "1 cancelled.")
		w.wantPosts(1, 0)
	})
}

// An order means the run that was open: a replay of one that had ended before is a run of its own, and can be cancelled as one,
// also before anybody has taken it.
func TestCancelMeansARun(t *testing.T) {
	inWorld(t, setup{ordered: true}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Status: 400, Code: "OsPlatformNotSupported", Times: 3})
		for n := range 3 {
			w.ask(fmt.Sprint("r", n), n)
			w.ends(fmt.Sprint("r", n))
		}
		w.order(`{"verb":"cancel","id":"r0","run":1}`)
		w.order(`{"verb":"cancel","id":"r1"}`)
		w.passes(6 * time.Second)
		w.must(w.shared.Pause(w.ctx, broker.Pause{Reason: "freeze"}))
		w.passes(time.Second)
		for n := range 3 {
			w.replay(fmt.Sprint("r", n))
		}
		w.passes(time.Second)
		w.order(`{"verb":"cancel","id":"r2"}`)
		w.until("the end of the replay", time.Minute, func() bool { r, _ := w.final("r2"); return r.Run == 2 })
		w.must(w.shared.Resume(w.ctx))
		w.settled(5 * time.Minute)
		w.wantFinal("r0", "succeeded")
		w.wantFinal("r1", "succeeded")
		if r := w.wantFinal("r2", "cancelled cancelledByRequest"); r.Run != 2 {
			t.Errorf("run %d", r.Run)
		}
		w.wantPosts(2, 1)
	})
}

// Rows of a paused batch cost no call and hold nobody up; each is redelivered about once a minute, in its own turn; and all go on
// within a minute of the resume.
func TestPausedBatchCostsNothing(t *testing.T) {
	const rows = 200
	inWorld(t, setup{replicas: 2, ordered: true, limits: budget.Limits(0, 2000), submit: untracked}, func(w *world) {
		w.order(`{"verb":"pause","batch":"b","reason":"look first"}`)
		w.passes(2 * time.Second)
		for n := range rows {
			w.ask(fmt.Sprint("r", n), n, inBatch("b"))
		}
		w.ask("other", 1000, inBatch("c"))
		w.ends("other")
		deliveries := func() uint64 {
			info, err := w.broker.Requests(message.LaneNormal).Info(w.ctx)
			w.must(err)
			return info.Delivered.Consumer
		}
		w.passes(time.Minute)
		before, crowd := deliveries(), uint64(0)
		for last, end := before, time.Now().Add(2*time.Minute); time.Now().Before(end); {
			w.passes(time.Second)
			now := deliveries()
			crowd, last = max(crowd, now-last), now
		}
		if n := len(w.api.Calls()); n != 1 {
			t.Errorf("%d calls", n)
		}
		if n := deliveries() - before; n > rows*3 {
			t.Errorf("%d deliveries of %d rows in 2 minutes", n, rows)
		}
		if crowd > rows/10 {
			t.Errorf("%d of %d rows come within a second", crowd, rows)
		}
		if e := w.entry("r7"); e.LastError == nil || e.LastError.Code != "held" || e.State != ledger.StateWaiting {
			t.Errorf("a row does not say why it waits: %+v", e)
		}
		w.order(`{"verb":"resume","batch":"b"}`)
		w.settled(time.Minute)
		for n := range rows {
			w.wantFinal(fmt.Sprint("r", n), "submitted")
		}
	})
}

// While a replica can't know what was ordered it calls nothing, and goes on when it can.
func TestNothingIsCalledWhileOrdersCantBeRead(t *testing.T) {
	inWorld(t, setup{replicas: -1, ordered: true, submit: untracked}, func(w *world) {
		r := w.launch(func(r *replica) { r.control = nil })
		w.ask("r1", 1)
		w.passes(time.Minute)
		w.wantPosts(1, 0)
		if r.orders.Current(0) {
			t.Error("it believes that it knows")
		}
		control := w.broker.NewControl(r.orders)
		w.must(control.Read(w.ctx))
		w.settled(time.Minute)
		// It has begun, and then hears no more: what it has in hand waits.
		w.passes(6 * time.Second)
		w.ask("r2", 2)
		w.passes(time.Minute)
		w.wantPosts(2, 0)
		w.order(`{"verb":"cancel","id":"r2"}`)
		w.must(control.Read(w.ctx))
		w.settled(time.Minute)
		w.wantFinal("r2", "cancelled cancelledByRequest")
	})
}

// The API is asked to cancel an action once, again where it may not have heard, and never for somebody else's. The run ends as
// the action does, whatever the API answers.
func TestCancelOfAnAction(t *testing.T) {
	slow := defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: 5 * time.Minute}}
	for _, c := range []struct {
		name    string
		fault   defendersim.Fault
		order   string
		asked   int
		status  int
		outcome string
	}{
		{"taken", defendersim.Fault{}, `,"actions":true`, 1, 200, "cancelled"},
		{"taken, and answered when its end is seen", defendersim.Fault{Status: 200, CarriedOut: true, Latency: 25 * time.Second, Times: 1}, `,"actions":true`, 1, 200, "cancelled"},
		{"not asked for", defendersim.Fault{}, ``, 0, 0, "succeeded"},
		{"carried out, and the answer lost", defendersim.Fault{Cut: "before", CarriedOut: true, Times: 1}, `,"actions":true`, 1, 0, "cancelled"},
		{"carried out, answered 500", defendersim.Fault{Status: 500, CarriedOut: true, Times: 1}, `,"actions":true`, 1, 500, "cancelled"},
		{"lost", defendersim.Fault{Cut: "before", Times: 1}, `,"actions":true`, 2, 200, "cancelled"},
		{"not known yet", defendersim.Fault{Status: 404, Times: 1}, `,"actions":true`, 2, 200, "cancelled"},
		{"throttled", defendersim.Fault{Status: 429, RetryAfter: 5 * time.Second, Times: 1}, `,"actions":true`, 2, 200, "cancelled"},
		{"never heard", defendersim.Fault{Status: 503}, `,"actions":true`, 3, 503, "succeeded"},
		{"refused", defendersim.Fault{Status: 400}, `,"actions":true`, 1, 400, "succeeded"},
		{"not permitted", defendersim.Fault{Status: 403, Message: "Missing application roles."}, `,"actions":true`, 3, 403, "succeeded"},
		{"said yes, and the action went its way", defendersim.Fault{Status: 200, Body: []byte(`{"status":"Cancelled"}`)}, `,"actions":true`, 1, 200, "succeeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, setup{replicas: 2, ordered: true, api: slow}, func(w *world) {
				if c.fault.Status != 0 || c.fault.Cut != "" {
					c.fault.Op = "cancel"
					w.api.Inject(c.fault)
				}
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateSubmitted })
				w.order(`{"verb":"cancel","id":"r1","reason":"why not"%s}`, c.order)
				w.settled(15 * time.Minute)
				r := w.wantFinal("r1", c.outcome)
				if q := r.CancelRequested; q == nil || q.HTTPStatus != c.status || q.Reason != "why not" {
					t.Errorf("cancelRequested %+v, want status %d", q, c.status)
				}
				if n := len(w.called("cancel")); n != c.asked {
					t.Errorf("the API was asked %d times, want %d", n, c.asked)
				}
				w.wantPosts(1, 1)
			})
		})
	}
	for mode, want := range map[defendersim.CancelMode]string{defendersim.CancelIgnored: "succeeded", defendersim.CancelLate: "cancelled"} {
		t.Run(fmt.Sprint("as the API sees fit ", mode), func(t *testing.T) {
			api := slow
			api.Cancel = mode
			inWorld(t, setup{ordered: true, api: api}, func(w *world) {
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateSubmitted })
				w.order(`{"verb":"cancel","id":"r1","actions":true}`)
				w.passes(3 * time.Minute)
				if r, ended := w.final("r1"); ended {
					t.Errorf("the reply alone ended it: %+v", r)
				}
				w.settled(15 * time.Minute)
				if r := w.wantFinal("r1", want); r.CancelRequested == nil || r.CancelRequested.HTTPStatus != 200 {
					t.Errorf("%+v", r.CancelRequested)
				}
			})
		})
	}
	t.Run("adopted", func(t *testing.T) {
		inWorld(t, setup{ordered: true, api: slow}, func(w *world) {
			w.api.Put(defendersim.Action{MachineID: machine(1), Comment: "from the portal"})
			w.ask("r1", 1)
			w.until("the adoption", time.Minute, func() bool { return w.entry("r1").Adopted })
			w.order(`{"verb":"cancel","id":"r1","actions":true}`)
			w.settled(15 * time.Minute)
			w.wantFinal("r1", "succeeded")
			if n := len(w.called("cancel")); n != 0 {
				t.Errorf("somebody else's action was cancelled, %d calls", n)
			}
		})
	})
}

// A replica that dies while it asks the API leaves an action that the next one sees to.
func TestDeathWhileAnActionIsCancelled(t *testing.T) {
	for _, times := range []int{1, 2} { // the write before the call, and the one behind it
		t.Run(fmt.Sprint("at write ", times), func(t *testing.T) {
			inWorld(t, setup{replicas: 2, ordered: true, api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: time.Hour}}}, func(w *world) {
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateSubmitted })
				w.passes(20 * time.Second)
				if times == 2 {
					w.faults.inject(fault{at: atRecord, takes: time.Millisecond, times: 1})
				}
				w.faults.inject(fault{at: atRecord, done: true, dies: true, times: 1})
				w.order(`{"verb":"cancel","id":"r1","actions":true}`)
				w.until("the death", time.Minute, func() bool { return w.living() == 1 })
				w.settled(3 * time.Hour)
				w.wantFinal("r1", "cancelled")
				if n := len(w.called("cancel")); n != 1 {
					t.Errorf("the API was asked %d times", n)
				}
			})
		})
	}
}

// A batch that is cancelled with calls in flight, while replicas die: each row is taken back or carried out once, and ends once.
// The API drops the calls of a replica that dies, or carries them out all the same: what it dropped was looked for, and is
// taken back.
func TestCancelOfABatchWhileReplicasDie(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		t.Run(fmt.Sprintf("carried out %v", carriedOut), func(t *testing.T) {
			inWorld(t, setup{replicas: 3, ordered: true, slots: 6}, func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Latency: 3 * time.Second, CarriedOut: carriedOut})
				if dropped := w.cancelWhileReplicasDie(300); carriedOut != (dropped == 0) {
					t.Errorf("%d calls were dropped", dropped)
				}
			})
		})
	}
}

// cancelWhileReplicasDie cancels a batch of so many rows, and kills replicas that have calls of it in flight.
func (w *world) cancelWhileReplicasDie(rows int) (dropped int) {
	w.passes(2 * time.Second)
	for n := range rows {
		w.ask(fmt.Sprint("r", n), n, inBatch("b"))
	}
	w.ask("other", 5000, inBatch("c"))
	w.until("calls in flight", time.Minute, func() bool { return len(w.called("unrestrict")) >= 16 })
	w.faults.inject(fault{at: atRecord, dies: true, times: 1}, fault{at: atDecision, done: true, dies: true, times: 1})
	w.order(`{"verb":"cancel","batch":"b","reason":"wrong list"}`)
	w.replicas[0].kill()
	w.passes(20 * time.Second)
	for w.living() < 3 {
		w.start()
	}
	w.settled(10 * time.Minute)
	back, acted := 0, w.actedOn()
	for n := range rows {
		r, _ := w.final(fmt.Sprint("r", n))
		switch code := cmp.Or(r.Error, &message.Failure{}).Code; {
		case r.Outcome == message.Succeeded && acted[machine(n)] == 1:
			w.wantPosts(n, 1)
		case code == message.CodeBatchCancelled && acted[machine(n)] == 0:
			back++
			dropped += r.Attempts
			w.wantPosts(n, r.Attempts)
			if looks := w.entry(r.RequestID).Looks; r.Attempts > 1 || r.Attempts == 1 && looks != 3 {
				w.t.Errorf("row %d is taken back after %d calls and %d looks", n, r.Attempts, looks)
			}
		default:
			w.t.Errorf("row %d ended %+v with %d actions", n, r, acted[machine(n)])
		}
	}
	w.wantFinal("other", "succeeded")
	if back < 200 {
		w.t.Errorf("%d of %d taken back", back, rows)
	}
	return dropped
}

// actedOn counts the actions of each machine.
func (w *world) actedOn() map[string]int {
	all := map[string]int{}
	for _, a := range w.api.Actions() {
		all[a.MachineID]++
	}
	return all
}

// An order is in the audit trail once, whoever leads, with who gave it and why.
func TestOrdersAreInTheAuditTrail(t *testing.T) {
	inWorld(t, setup{replicas: 2, ordered: true}, func(w *world) {
		w.passes(2 * time.Second)
		w.order(`{"verb":"cancel","id":"r1","reason":"wrong machine"}`)
		w.order(`{"verb":"cancel"}`)
		w.order(`{"verb":"dance"}`)
		w.passes(5 * time.Second)
		w.replicas[0].stop()
		w.order(`{"verb":"pause","batch":"b"}`)
		w.passes(90 * time.Second)
		w.check()
		var acts []string
		for _, r := range w.trail.records {
			if r.Kind == ledger.AuditOrdered || r.Kind == ledger.AuditCounted {
				act := r.Act + r.RequestID + r.Batch + " " + r.Reason
				if r.Error != nil {
					act = fmt.Sprint(r.Kind, " ", r.Error.Code, " ", r.Count)
				}
				acts = append(acts, act)
			}
		}
		slices.Sort(acts) // the count is written when its minute is over, before or after the next order
		want := "[cancelr1 wrong machine counted malformed 1 ordered malformed 0 pauseb ]"
		if got := fmt.Sprint(acts); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// What a lost stream had cancelled or held back is not called by a replica that starts later, until somebody has given the orders
// again and answered.
func TestNothingIsCalledWhileOrdersAreLost(t *testing.T) {
	inWorld(t, setup{ordered: true, submit: untracked}, func(w *world) {
		w.order(`{"verb":"pause","batch":"b"}`)
		w.order(`{"verb":"cancel","id":"later"}`)
		w.ask("held", 1, inBatch("b"))
		w.passes(5 * time.Second)
		w.replicas[0].stop()
		w.must(w.broker.JS().DeleteStream(w.ctx, w.broker.Names().ControlStream))
		w.must(w.broker.Provision(w.ctx))
		w.start()
		w.ask("later", 2)
		w.ask("free", 3)
		w.passes(5 * time.Minute)
		if n := len(w.api.Calls()); n != 0 {
			t.Errorf("%d calls", n)
		}
		w.order(`{"verb":"pause","batch":"b"}`)
		w.order(`{"verb":"cancel","id":"later"}`)
		w.must(w.broker.AcceptLostOrders(w.ctx))
		w.ends("later")
		w.ends("free")
		w.passes(5 * time.Minute)
		w.wantPosts(1, 0)
		w.wantPosts(2, 0)
		w.order(`{"verb":"resume","batch":"b"}`)
		w.settled(2 * time.Minute)
		w.wantFinal("held", "submitted")
	})
}
