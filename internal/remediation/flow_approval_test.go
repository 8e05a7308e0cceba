package remediation_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
	"example.com/unrestrict-worker/internal/remediation"
)

// office is a world with people in it who sign requests and orders.
type office struct {
	*world
	people        map[string]signer
	trusted, rule string // files
}

const (
	oneOfTwo   = "signers:\n  soar:\n    approvals: {required: 1, by: [ann, ben], within: 10m}\ndefault: {}\n"
	twoOfThree = "signers:\n  soar:\n    approvals: {required: 2, by: [ann, ben, carl], within: 10m}\ndefault: {}\n"
)

// inOffice runs a test in a world whose replicas keep to a policy. soar and carl have second keys, soar2 and carl2.
func inOffice(t *testing.T, rule string, set setup, test func(o *office)) {
	t.Helper()
	o := &office{people: map[string]signer{}, trusted: filepath.Join(t.TempDir(), "signers"), rule: filepath.Join(t.TempDir(), "policy.yaml")}
	for _, name := range []string{"soar", "soar2", "ann", "ben", "carl", "carl2", "eve", "stranger"} {
		o.people[name] = newSigner(t)
	}
	replicas := max(set.replicas, 1)
	set.replicas = -1
	set.rules = func(s *remediation.Submitter) {
		var err error
		s.Rules.Signers, err = message.SignersFile(o.trusted)
		o.must(err)
		s.Policy, err = policy.Load(o.rule, s.Rules.Signers)
		o.must(err)
		s.Orders = &remediation.Orders{Rules: message.Rules{Signers: s.Rules.Signers}, Policy: s.Policy}
		control := o.broker.NewControl(s.Orders)
		o.watched.Go(func() { _ = control.Run(o.ctx) })
	}
	inWorld(t, set, func(w *world) {
		o.world = w
		o.trust("soar", "soar2", "ann", "ben", "carl", "carl2", "eve")
		o.rules(rule)
		for range replicas {
			o.start()
		}
		test(o)
	})
}

func (o *office) trust(names ...string) {
	o.t.Helper()
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintln(&lines, o.people[name].public, strings.TrimSuffix(name, "2"))
	}
	o.must(os.WriteFile(o.trusted, []byte(lines.String()), 0o600))
}

func (o *office) rules(text string) {
	o.t.Helper()
	o.must(os.WriteFile(o.rule, []byte(text), 0o600))
}

// asks publishes a request of somebody's and returns its digest.
func (o *office) asks(by, id string, n int, more ...field) (digest string) {
	o.t.Helper()
	o.askAs(o.people[by], id, n, more...)
	return message.SignedDigest(o.broker.Names().Subject, o.signed[len(o.signed)-1].data)
}

// says publishes an order of somebody's; "" does not sign.
func (o *office) says(by string, order message.Order) {
	o.t.Helper()
	data, err := order.Encode()
	o.must(err)
	subject := o.broker.Names().ControlSubject
	m := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: data}
	if by != "" {
		key, signature, err := message.Sign([]byte(o.people[by].seed), subject, data)
		o.must(err)
		m.Header[message.HeaderSigner], m.Header[message.HeaderSignature] = []string{key}, []string{signature}
	}
	_, err = o.broker.JS().PublishMsg(o.ctx, m)
	o.must(err)
}

func approve(id, digest string) message.Order {
	return message.Order{Verb: message.VerbApprove, ID: id, Digest: digest, Reason: "clean"}
}

func deny(id, digest string) message.Order {
	return message.Order{Verb: message.VerbDeny, ID: id, Digest: digest, Reason: "dirty"}
}

// awaits checks that a run of r waits, and was asked for once.
func (o *office) awaits(run int) {
	o.t.Helper()
	o.until("r to await approval", time.Minute, func() bool { e := o.entry("r"); return e.Run == run && e.Awaits() })
	var told []message.Result
	for _, r := range o.resultsOf("r") {
		if r.Run == run {
			told = append(told, r)
		}
	}
	if len(told) != 1 || told[0].Final || told[0].Outcome != message.AwaitingApproval || told[0].Approval == nil || told[0].ApprovedBy != nil {
		o.t.Fatalf("r was told %+v", told)
	}
}

// stillAwaits checks that nothing has come of the run of r, for machine 1, two minutes on.
func (o *office) stillAwaits() {
	o.t.Helper()
	o.passes(2 * time.Minute)
	if e := o.entry("r"); e.State != ledger.StateWaiting || len(o.posts(1)) > 0 {
		o.t.Fatalf("r is %s, with %d calls", e.State, len(o.posts(1)))
	}
}

func (o *office) releasedBy(id string, names ...string) {
	o.t.Helper()
	r := o.wantFinal(id, "succeeded")
	slices.Sort(r.ApprovedBy)
	if !slices.Equal(r.ApprovedBy, names) {
		o.t.Errorf("%s was approved by %v, want %v", id, r.ApprovedBy, names)
	}
}

// TestNobodyReleasesAlone: nothing of what one person can do on his own has a request called for that somebody else must approve.
func TestNobodyReleasesAlone(t *testing.T) {
	for name, alone := range map[string]func(o *office, digest string){
		"he waits":                        func(*office, string) {},
		"he approves his own":             func(o *office, d string) { o.says("soar", approve("r", d)) },
		"he approves with another key":    func(o *office, d string) { o.says("soar2", approve("r", d)) },
		"whom requestedBy names approves": func(o *office, d string) { o.says("ann", approve("r", d)) },
		"one who is not named approves":   func(o *office, d string) { o.says("eve", approve("r", d)) },
		"a stranger approves":             func(o *office, d string) { o.says("stranger", approve("r", d)) },
		"nobody signs":                    func(o *office, d string) { o.says("", approve("r", d)) },
		"another digest":                  func(o *office, _ string) { o.says("ben", approve("r", "sha256:"+strings.Repeat("0", 64))) },
		"another id":                      func(o *office, d string) { o.says("ben", approve("s", d)) },
		"another run":                     func(o *office, d string) { a := approve("r", d); a.Run = 2; o.says("ben", a) },
		"another's request":               func(o *office, d string) { a := approve("r", d); a.Signer = "eve"; o.says("ben", a) },
		"another client's":                func(o *office, d string) { a := approve("r", d); a.Client = "eve"; o.says("ben", a) },
		"expired when it was given": func(o *office, d string) {
			a := approve("r", d)
			a.ExpiresAt = time.Now().Add(-time.Second)
			o.says("ben", a)
		},
		"a denial by one who is not named": func(o *office, d string) { o.says("eve", deny("r", d)) },
		"a denial of another digest":       func(o *office, _ string) { o.says("ben", deny("r", "sha256:"+strings.Repeat("0", 64))) },
		"he publishes it again":            func(o *office, _ string) { o.publish("r", o.signed[0].header, o.signed[0].data) },
		"he publishes it with another subject": func(o *office, d string) {
			o.says("ben", message.Order{Verb: message.VerbCancel, ID: "other", Reason: d})
		},
		"he signs ben's approval": func(o *office, d string) {
			data, err := new(message.Order{Verb: message.VerbApprove, ID: "r", Digest: d}).Encode()
			o.must(err)
			_, signature, err := message.Sign([]byte(o.people["soar"].seed), o.broker.Names().ControlSubject, data)
			o.must(err)
			_, err = o.broker.JS().PublishMsg(o.ctx, &nats.Msg{
				Subject: o.broker.Names().ControlSubject, Data: data,
				Header: nats.Header{message.HeaderSigner: {o.people["ben"].public}, message.HeaderSignature: {signature}},
			})
			o.must(err)
		},
		"ben approved, and his key was withdrawn": func(o *office, d string) {
			o.trust("soar", "soar2", "ann", "carl", "eve")
			o.rules("default:\n  approvals: {required: 1, by: [ann, soar], within: 3m}\n")
			o.says("ben", approve("r", d))
		},
		"ben approved, and the policy names him no more": func(o *office, d string) {
			o.rules("default:\n  approvals: {required: 1, by: [ann, soar], within: 3m}\n")
			o.says("ben", approve("r", d))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, "signers:\n  carl:\n    approvals: {required: 1, by: [eve], within: 3m}\ndefault:\n  approvals: {required: 1, by: [ann, ben, soar], within: 3m}\n", setup{}, func(o *office) {
				digest := o.asks("soar", "r", 1, field{"requestedBy", `"ANN"`})
				o.awaits(1)
				alone(o, digest)
				o.stillAwaits()
				o.passes(time.Minute)
				o.settled(time.Minute)
				o.wantFinal("r", "rejected approvalExpired")
				o.wantPosts(1, 0)
			})
		})
	}
}

func TestApproved(t *testing.T) {
	inOffice(t, twoOfThree, setup{replicas: 2}, func(o *office) {
		digest := o.asks("soar", "r", 1)
		o.awaits(1)
		o.says("carl", approve("r", digest))
		again := approve("r", digest)
		again.Reason = "once more"
		o.says("carl", again)
		o.says("carl2", again)
		o.stillAwaits()
		began := time.Now()
		o.says("ann", approve("r", digest))
		o.until("the call", time.Minute+time.Second, func() bool { return len(o.posts(1)) == 1 })
		if took := time.Since(began); took > time.Minute+time.Second {
			t.Errorf("it went on after %v", took)
		}
		o.says("ben", deny("r", digest)) // too late
		o.settled(10 * time.Minute)
		o.releasedBy("r", "ann", "carl")

		early := o.people["soar"]
		h, data := o.sign(early, "early", 2)
		o.says("ann", approve("early", message.SignedDigest(o.broker.Names().Subject, data)))
		o.says("ben", approve("early", message.SignedDigest(o.broker.Names().Subject, data)))
		o.publish("early", h, data)
		o.settled(time.Minute)
		o.releasedBy("early", "ann", "ben")

		o.asks("ann", "free", 3) // by default nobody is asked
		o.settled(time.Minute)
		o.wantFinal("free", "succeeded")
	})
}

// Who approves for a while, and then for good before that is over, has approved.
func TestApprovedForLonger(t *testing.T) {
	inOffice(t, twoOfThree, setup{}, func(o *office) {
		digest := o.asks("soar", "r", 1)
		o.awaits(1)
		brief := approve("r", digest)
		brief.ExpiresAt = time.Now().Add(time.Minute)
		o.says("carl", brief)
		o.says("carl", approve("r", digest))
		o.stillAwaits()
		o.says("ann", approve("r", digest))
		o.settled(10 * time.Minute)
		o.releasedBy("r", "ann", "carl")
	})
}

// A record of a release has each approval, with what others need to verify it.
func TestApprovalsAreRecorded(t *testing.T) {
	inOffice(t, twoOfThree, setup{}, func(o *office) {
		digest := o.asks("soar", "r", 1)
		o.awaits(1)
		o.says("carl", approve("r", digest))
		o.says("ann", approve("r", digest))
		denied := o.asks("soar", "s", 2)
		o.says("ben", deny("s", denied))
		o.settled(10 * time.Minute)
		for _, kind := range []string{ledger.AuditAwaiting, ledger.AuditAccepted, ledger.AuditDecided} {
			all := o.recorded("r", kind)
			if len(all) != 1 || all[0].Approval == nil || all[0].Approval.Digest != digest || all[0].Approval.Required != 2 {
				t.Fatalf("%s: %+v", kind, all)
			}
			if kind == ledger.AuditAwaiting {
				continue
			}
			for i, name := range []string{"carl", "ann"} {
				v := all[0].Approval.Given[i]
				if v.By != name || v.Signer != o.people[name].public || v.Reason != "clean" || !message.Signed(v.Signer, v.Signature, v.Subject, []byte(v.Order)) {
					t.Errorf("%s: %+v", kind, v)
				}
			}
		}
		o.wantFinal("s", "rejected denied")
		if r := o.recorded("s", ledger.AuditDecided)[0]; r.Approval.Denied == nil || r.Approval.Denied.By != "ben" {
			t.Errorf("%+v", r.Approval)
		}
	})
}

// A replay needs approvals of its own, and what was said of an earlier run says nothing of it.
func TestReplayIsApprovedAnew(t *testing.T) {
	inOffice(t, twoOfThree, setup{}, func(o *office) {
		digest := o.asks("soar", "r", 1)
		o.awaits(1)
		o.says("ann", approve("r", digest))
		o.passes(11 * time.Minute)
		o.settled(time.Minute)
		o.wantFinal("r", "rejected approvalExpired")
		o.says("ben", approve("r", digest)) // too late for run 1
		o.replayLetter("r", o.lastDead("r"))
		o.awaits(2)
		second := approve("r", digest)
		second.Run = 2
		o.says("ben", second)
		o.stillAwaits()
		o.says("carl", second)
		o.settled(10 * time.Minute)
		o.releasedBy("r", "ben", "carl")
		o.wantPosts(1, 1)
	})
}

// What somebody was allowed once he can't have again under his own name, whoever signs what was approved.
func TestApprovalIsForItsOwner(t *testing.T) {
	inOffice(t, "default:\n  approvals: {required: 1, by: [ben], within: 10m}\n", setup{}, func(o *office) {
		digest := o.asks("soar", "r", 1)
		o.awaits(1)
		o.says("ben", approve("r", digest))
		o.settled(10 * time.Minute)
		o.releasedBy("r", "ben")
		o.passes(time.Minute)
		data := o.signed[0].data
		key, signature, err := message.Sign([]byte(o.people["eve"].seed), o.broker.Names().Subject, data)
		o.must(err)
		o.publish("r", message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}, data)
		o.passes(12 * time.Minute)
		o.settled(time.Minute)
		o.finalOf("r", "eve", "rejected approvalExpired")
		o.wantPosts(1, 1)
	})
}

// Approval is a place in the queue: expiry, policy and the machine's newer actions are judged before the call.
func TestApprovedIsJudgedAnew(t *testing.T) {
	stricter := strings.Replace(oneOfTwo, "    approvals", "    ticket_required: true\n    approvals", 1)
	for name, c := range map[string]struct {
		meanwhile func(o *office)
		want      string
	}{
		"nothing":                 {func(*office) {}, "succeeded"},
		"restricted again":        {func(o *office) { o.analystDoes(1, "RestrictCodeExecution", "") }, "rejected restrictedAgain"},
		"a stricter policy":       {func(o *office) { o.rules(stricter) }, "rejected policy"},
		"the signer is withdrawn": {func(o *office) { o.rules("signers:\n  ann: {}\n"); o.trust("ann", "ben") }, "rejected unknownSigner"},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, oneOfTwo, setup{submit: func(c *remediation.SubmitConfig) { c.GuardAfter = time.Minute }}, func(o *office) {
				digest := o.asks("soar", "r", 1)
				o.awaits(1)
				o.passes(5 * time.Minute)
				c.meanwhile(o)
				o.says("ann", approve("r", digest))
				o.settled(10 * time.Minute)
				o.wantFinal("r", c.want)
			})
		})
	}
}

// What does not count is recorded with why; what counts, or may yet, without.
func TestVerdictsAreWeighed(t *testing.T) {
	inOffice(t, twoOfThree, setup{}, func(o *office) {
		digest := o.asks("soar", "r", 1, field{"requestedBy", `"Ann"`})
		o.awaits(1)
		ended := o.asks("ann", "ended", 2)
		o.settledBut("r")
		other := "sha256:" + strings.Repeat("0", 64)
		of := func(v message.Order, signer string, run int) message.Order {
			v.Signer, v.Run = signer, run
			return v
		}
		for _, c := range []struct {
			by    string
			order message.Order
			want  string
		}{
			{"ben", approve("r", digest), ""},
			{"ben", approve("later", digest), ""},
			{"ben", of(approve("r", digest), "", 2), ""},
			{"ben", of(approve("r", digest), "soar", 1), ""},
			{"ben", deny("r", other), remediation.CodeOtherDigest},
			{"ben", approve("r", other), remediation.CodeOtherDigest},
			{"ann", approve("r", digest), remediation.CodeOwnRequest},
			{"soar", approve("r", digest), message.CodePolicy},
			{"eve", approve("r", digest), message.CodePolicy},
			{"ben", approve("ended", ended), remediation.CodeTooLate},
			{"stranger", approve("r", digest), message.CodeUnknownSigner},
		} {
			o.says(c.by, c.order)
			subject := o.broker.Names().ControlStream
			s, err := o.broker.JS().Stream(o.ctx, subject)
			o.must(err)
			info, err := s.Info(o.ctx)
			o.must(err)
			m, err := s.GetMsg(o.ctx, info.State.LastSeq)
			o.must(err)
			o.passes(2 * time.Second) // it is heard
			o.must(o.replicas[0].submitter.RecordOrder(o.ctx, o.broker.NewControl(&remediation.Orders{}), message.Delivery{Stream: subject, Sequence: m.Sequence, Subject: m.Subject, Header: message.Header(m.Header), Data: m.Data, Published: m.Time}))
			o.readTrail()
			r := o.trail.records[len(o.trail.records)-1]
			got := ""
			if r.Error != nil {
				got = r.Error.Code
			}
			if r.Kind != ledger.AuditOrdered || got != c.want || got == "" && r.Signature == "" {
				t.Errorf("%s of %s by %s: %q, want %q: %+v", c.order.Verb, c.order.ID, c.by, got, c.want, r.Error)
			}
		}
		o.says("carl", approve("r", digest))
		o.settled(5 * time.Minute)
		o.releasedBy("r", "ben", "carl")
	})
}

// Another message of a request that awaits approval, on the lane that it is moved to, can be approved as well as the first: the run
// is called for by that one, and the record says that it counted.
func TestApprovalOfAnotherMessage(t *testing.T) {
	inOffice(t, oneOfTwo, setup{ordered: true}, func(o *office) {
		o.asks("soar", "r", 1)
		o.awaits(1)
		subject := o.broker.Names().LaneSubject(message.LaneUrgent)
		data := payload("r", 1, field{"requestedBy", `"Ben"`}, expiresIn(24*time.Hour))
		key, signature, err := message.Sign([]byte(o.people["soar"].seed), subject, data)
		o.must(err)
		stored, err := o.broker.Publish(o.ctx, message.LaneUrgent, message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}, data)
		o.must(err)
		o.published = append(o.published, request{stored.Sequence, "r"})
		digest := message.SignedDigest(subject, data)
		o.says("ben", approve("r", digest)) // whom that message names
		o.says("ann", approve("r", "sha256:"+strings.Repeat("0", 64)))
		o.says("ann", approve("r", digest))
		o.passes(5 * time.Second)
		o.readTrail()
		var got []string
		for _, r := range o.trail.records {
			if r.Kind == ledger.AuditOrdered {
				got = append(got, r.SignedBy+" "+cmp.Or(r.Error, &message.Failure{}).Code)
			}
		}
		if want := []string{"ben ownRequest", "ann otherDigest", "ann "}; !slices.Equal(got, want) {
			t.Errorf("recorded %q, want %q", got, want)
		}
		o.settled(5 * time.Minute)
		o.releasedBy("r", "ann")
	})
}

// settledBut waits for the end of all requests but one.
func (o *office) settledBut(id string) {
	o.t.Helper()
	o.until("the others to end", time.Minute, func() bool {
		for _, e := range o.entries() {
			if e.ID != id && !e.Published {
				return false
			}
		}
		return true
	})
}

// A replica that dies, or whose write or reply is lost, at any point on the way of a run that awaits approval costs nothing but
// time: it is asked for once, called once after it is approved, and never if it is denied.
func TestApprovalSurvivesAnyFault(t *testing.T) {
	for _, c := range []struct {
		name   string
		denied bool
		before []point // that it is asked for
		after  []point
		want   string
	}{
		{"approved", false, []point{atHeld, atWaiting, atAudit, atSubmitted}, []point{atIntent, atMachine, atPost, atRecord, atAck, atMark}, "succeeded"},
		{"denied", true, nil, []point{atDecision, atAudit, atLetter, atFinal, atMark, atAck}, "rejected denied"},
	} {
		for _, dies := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, dies %t", c.name, dies), func(t *testing.T) {
				inOffice(t, oneOfTwo, setup{replicas: 2}, func(o *office) {
					n := 0
					for _, at := range slices.Concat(c.before, c.after) {
						for _, done := range []bool{false, true} {
							n++
							f := fault{at: at, done: done, dies: dies, times: 1}
							id := fmt.Sprint("r ", f)
							o.faults.clear()
							if slices.Contains(c.before, at) {
								o.faults.inject(f)
							}
							digest := o.asks("soar", id, n)
							o.until(id+" to await approval", 3*time.Minute, func() bool { e := o.entry(id); return e.Awaits() })
							if !slices.Contains(c.before, at) {
								o.faults.inject(f)
							}
							answer := approve(id, digest)
							if c.denied {
								answer = deny(id, digest)
							}
							o.says("ann", answer)
							o.settled(10 * time.Minute)
							o.wantFinal(id, c.want)
							if o.faults.armed() != 0 {
								t.Errorf("%s: nobody came to the point", f)
							}
							if asked := len(o.resultsOf(id)); !c.denied && asked != 3 || c.denied && asked != 2 {
								t.Errorf("%s: %d results", f, asked)
							}
							if dies {
								o.start()
							}
						}
					}
				})
			})
		}
	}
}
