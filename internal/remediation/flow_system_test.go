package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

func TestNotFoundIsFinalOnlyWhenItComesTwice(t *testing.T) {
	for _, times := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d times", times), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: times, Status: 404})
				w.ask("r1", 1)
				w.settled(5 * time.Minute)
				if times == 1 {
					w.wantFinal("r1", "succeeded")
				} else if r := w.wantFinal("r1", "rejected ResourceNotFound"); r.Error.HTTPStatus != 404 || r.Error.Origin != "defender" || len(w.dead("r1")) != 1 {
					t.Errorf("%+v, %d dead letters", r.Error, len(w.dead("r1")))
				}
				w.wantPosts(1, 2)
				if calls := w.posts(1); calls[1].At.Sub(calls[0].At) < 5*time.Second {
					t.Errorf("asked again after %v", calls[1].At.Sub(calls[0].At))
				}
			})
		})
	}
}

// emptyNotFound is a 404 without a body, which Defender gives and proxies too.
var emptyNotFound = defendersim.Fault{Status: 404, Body: []byte{}}

// A 404 without a body is the request's own while the API answers others: nobody is held up.
func TestEmptyNotFoundIsTheRequestsOwnBesideOthers(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.ask("r0", 0)
		w.settled(time.Minute)
		f := emptyNotFound
		f.Op, f.Machine = "unrestrict", machine(1)
		w.api.Inject(f)
		w.ask("r1", 1)
		w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
		for n := 2; n < 12; n++ {
			w.ask(fmt.Sprint("r", n), n)
			w.passes(time.Second)
			if fault, on := w.replicas[0].breaker.Current(); on {
				t.Fatalf("paused: %+v", fault)
			}
		}
		w.settled(5 * time.Minute)
		for n := 2; n < 12; n++ {
			w.wantFinal(fmt.Sprint("r", n), "succeeded")
		}
		if r := w.wantFinal("r1", "rejected http404"); r.Error.HTTPStatus != 404 || r.Error.Origin != "defender" || len(w.dead("r1")) != 1 {
			t.Errorf("%+v, %d dead letters", r.Error, len(w.dead("r1")))
		}
		w.wantPosts(1, 2)
		if calls := w.posts(1); calls[1].At.Sub(calls[0].At) < 5*time.Second {
			t.Errorf("asked again after %v", calls[1].At.Sub(calls[0].At))
		}
	})
}

// Alone it is so only once the API has shown itself since the first one: the looks see to that.
func TestEmptyNotFoundOfALoneRequest(t *testing.T) {
	inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
		f := emptyNotFound
		f.Op = "unrestrict"
		w.api.Inject(f)
		w.ask("r1", 1)
		w.settled(15 * time.Minute)
		w.wantFinal("r1", "rejected http404")
	})
}

// A proxy that begins to answer everything so, when all went well a moment ago, costs no request.
func TestEmptyNotFoundOfAProxyCostsNoRequest(t *testing.T) {
	for _, requests := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d requests", requests), func(t *testing.T) {
			inWorld(t, setup{submit: impatient, untended: true, free: true}, func(w *world) {
				w.ask("before", 100)
				w.settled(time.Minute)
				w.api.Inject(emptyNotFound)
				for n := range requests {
					w.ask(fmt.Sprint("r", n), n)
				}
				w.passes(outage)
				for n := range requests {
					if r, ended := w.final(fmt.Sprint("r", n)); ended {
						t.Fatalf("ended during the outage: %s %+v\n%s", r.Outcome, r.Error, w.dump())
					}
				}
				if _, on := w.replicas[0].breaker.Current(); !on {
					t.Errorf("nobody is told of the outage\n%s", w.dump())
				}
				w.api.ClearFaults()
				w.settled(15 * time.Minute)
				for n := range requests {
					w.wantFinal(fmt.Sprint("r", n), "submitted")
				}
			})
		})
	}
}

// A 403 is a request's own once this token has had a call accepted, unless it names a permission.
func TestForbiddenIsTheRequestsOwnOnlyAfterAnAcceptedCall(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		own := defendersim.Fault{Op: "unrestrict", Machine: machine(1), Status: 403, Code: "DisallowedOperation", Message: "the machine is not managed"}
		w.api.Inject(own)
		w.ask("r1", 1)
		w.passes(10 * time.Minute)
		w.wantOutcomes("r1")
		if _, on := w.replicas[0].breaker.Current(); !on {
			t.Error("no pause, though no call was accepted yet")
		}
		// The probe is another request; its acceptance ends the pause, and then the refusal is the first one's own.
		calls := len(w.posts(1))
		w.ask("r2", 2)
		w.settled(5 * time.Minute)
		w.wantFinal("r2", "succeeded")
		w.wantFinal("r1", "rejected DisallowedOperation")
		if more := len(w.posts(1)) - calls; more < 1 || more > 3 {
			t.Errorf("%d more calls for the refused one", more)
		}
		w.ask("r3", 3) // a proven token
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(3), Times: 2, Status: 403, Message: "Missing application roles. API required roles: Machine.RestrictExecution."})
		w.settled(5 * time.Minute)
		w.wantFinal("r3", "succeeded")
	})
}

// A new token has to prove itself again.
func TestForbiddenWithANewTokenPauses(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.ask("r1", 1)
		w.settled(time.Minute)
		w.tokens.grant()
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 5, Status: 403, Code: "Forbidden", Message: "no"})
		w.ask("r2", 2)
		w.settled(10 * time.Minute)
		w.wantFinal("r2", "succeeded")
	})
}

// However many requests are refused for their own sake before the token is proven, the probes come to the others.
func TestProbesComeToThoseThatCanBeServed(t *testing.T) {
	for _, bad := range []int{2, 20} {
		t.Run(fmt.Sprintf("%d refused first", bad), func(t *testing.T) {
			inWorld(t, setup{free: true, untended: true, submit: untracked}, func(w *world) {
				for n := range bad {
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(n), Status: 403, Code: "DisallowedOperation", Message: "not this machine"})
					w.ask(fmt.Sprint("bad", n), n)
				}
				w.passes(10 * time.Minute)
				for n := range 3 {
					w.ask(fmt.Sprint("good", n), 100+n)
				}
				w.settled(5 * time.Minute)
				for n := range bad {
					w.wantFinal(fmt.Sprint("bad", n), "rejected DisallowedOperation")
				}
				for n := range 3 {
					w.wantFinal(fmt.Sprint("good", n), "submitted")
				}
			})
		})
	}
}

// outages are faults of the system: how each begins and ends.
var outages = map[string]struct {
	begin, end func(w *world)
}{
	"token endpoint down": {func(w *world) { w.tokens.setDown(true) }, func(w *world) { w.tokens.setDown(false) }},
	"unreachable":         {func(w *world) { w.net.setDown(true) }, func(w *world) { w.net.setDown(false) }},
	"permission missing":  {func(w *world) { w.tokens.grant("Machine.Read.All") }, func(w *world) { w.tokens.grant() }},
	"broker refuses writes": {
		func(w *world) {
			w.faults.inject(fault{at: atIntent}, fault{at: atWaiting}, fault{at: atUnknown}, fault{at: atRecord}, fault{at: atDecision})
		},
		func(w *world) { w.faults.clear() },
	},
	"broker refuses results": {
		func(w *world) { w.faults.inject(fault{at: atSubmitted}, fault{at: atFinal}, fault{at: atLetter}) },
		func(w *world) { w.faults.clear() },
	},
	"401":                                    answering(defendersim.Fault{Status: 401}),
	"403":                                    answering(defendersim.Fault{Status: 403}),
	"disabled feature":                       answering(defendersim.Fault{Status: 403, Code: "DisabledFeature"}),
	"redirect":                               answering(defendersim.Fault{Status: 302}),
	"proxy's 403":                            answering(defendersim.Fault{Status: 403, Body: []byte("<html>Forbidden</html>")}),
	"proxy's 404":                            answering(defendersim.Fault{Status: 404, Body: []byte("<html>Not Found</html>")}),
	"proxy's empty 404":                      answering(emptyNotFound),
	"proxy's empty 405":                      answering(defendersim.Fault{Status: 405, Body: []byte{}}),
	"proxy's 407":                            answering(defendersim.Fault{Status: 407, Body: []byte("<html>Sign in</html>")}),
	"API answers 503":                        answering(defendersim.Fault{Status: 503}),
	"API answers 500":                        answering(defendersim.Fault{Status: 500}),
	"proxy answers 502":                      answering(defendersim.Fault{Status: 502, Body: []byte("<html>Bad Gateway</html>")}),
	"API answers 503 to what it carries out": answering(defendersim.Fault{Status: 503, CarriedOut: true}),
	"only calls answer 503":                  answering(defendersim.Fault{Op: "unrestrict", Status: 503}),
	"only calls hang":                        answering(defendersim.Fault{Op: "unrestrict", Hang: true}),
	"API hangs":                              answering(defendersim.Fault{Hang: true}),
	"API cuts every connection":              answering(defendersim.Fault{Cut: "before"}),
}

func answering(f defendersim.Fault) struct{ begin, end func(w *world) } {
	return struct{ begin, end func(w *world) }{func(w *world) { w.api.Inject(f) }, func(w *world) { w.api.ClearFaults() }}
}

// alone are the outages in which a single request is no like several: they show only in more than one.
var alone = map[string]bool{
	"API answers 503": true, "API hangs": true, "API cuts every connection": true, "only calls answer 503": true,
	"API answers 503 to what it carries out": true, "unreachable": true, "broker refuses writes": true,
}

// An outage costs no request, however long it lasts, and however many wait for its end.
func TestOutageCostsNoRequest(t *testing.T) {
	for name, o := range outages {
		for _, requests := range []int{1, 4} {
			if requests == 1 && !alone[name] {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d requests", name, requests), func(t *testing.T) {
				set := setup{submit: impatient, untended: true, free: true}
				inWorld(t, set, func(w *world) {
					o.begin(w)
					for n := range requests {
						w.ask(fmt.Sprint("r", n), n)
					}
					w.passes(outage)
					for n := range requests {
						if r, ended := w.final(fmt.Sprint("r", n)); ended {
							t.Fatalf("ended during the outage: %s %+v\n%s", r.Outcome, r.Error, w.dump())
						}
					}
					if _, on := w.replicas[0].breaker.Current(); !on && requests > 1 { // one unclear answer shows nothing
						t.Errorf("nobody is told of the outage\n%s", w.dump())
					}
					before := len(w.api.Calls())
					if most := int(outage/(10*time.Second)) * 3; before > most {
						t.Errorf("%d calls during the outage", before)
					}
					o.end(w)
					w.settled(15 * time.Minute)
					for n := range requests {
						w.wantFinal(fmt.Sprint("r", n), "submitted")
					}
					if f, on := w.replicas[0].breaker.Current(); on {
						t.Errorf("still paused: %+v", f)
					}
				})
			})
		}
	}
}

// A replica that met a fault is ready again once the fault is gone, though others have done all there was to do and
// nobody asks for anything more.
func TestFaultEndsThoughNobodyAsks(t *testing.T) {
	for _, code := range []string{"unreachable", "unclearAnswers"} {
		t.Run(code, func(t *testing.T) {
			inWorld(t, setup{untended: true}, func(w *world) {
				breaker := w.replicas[0].breaker
				w.api.Inject(defendersim.Fault{Status: 503})
				breaker.Trip(code, "as a call said")
				w.passes(5 * time.Minute)
				tried := len(w.called("list"))
				if _, on := breaker.Current(); !on || tried < 10 || tried > 30 {
					t.Errorf("on %v after %d probes in five minutes", on, tried)
				}
				w.api.ClearFaults()
				w.passes(time.Minute)
				if f, on := breaker.Current(); on {
					t.Errorf("still paused: %+v", f)
				}
				w.passes(5 * time.Minute)
				if n := len(w.called("list")); n != tried+1 {
					t.Errorf("%d probes more, want one", n-tried)
				}
			})
		})
	}
}

// The same of a broker that did not store.
func TestStoreFaultEndsThoughNobodyAsks(t *testing.T) {
	inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
		breaker := w.replicas[0].breaker
		breaker.Trip("store", "as a write said")
		w.faults.inject(fault{at: atProbe})
		w.passes(10 * time.Minute)
		if _, on := breaker.Current(); !on {
			t.Error("open though nothing can be stored")
		}
		w.faults.clear()
		w.passes(time.Minute)
		if f, on := breaker.Current(); on {
			t.Errorf("still paused: %+v", f)
		}
		if n := len(w.api.Calls()); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}

// Whether the API takes calls again shows in calls alone.
func TestRefusalOfCallsWaitsForACall(t *testing.T) {
	inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
		w.replicas[0].breaker.Trip("Forbidden", "as a call said")
		w.passes(5 * time.Minute)
		if _, on := w.replicas[0].breaker.Current(); !on || len(w.called("list")) != 0 {
			t.Errorf("on %v after %d look-ups", on, len(w.called("list")))
		}
		w.ask("r1", 1)
		w.ends("r1")
		if f, on := w.replicas[0].breaker.Current(); on {
			t.Errorf("still paused: %+v", f)
		}
	})
}
