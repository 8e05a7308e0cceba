package remediation

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
)

// Codes of a Fault of the system, the values of unrestrict_paused{reason} beside the operator's own.
const (
	faultStore       = "store"
	faultSlow        = "slowBroker"
	faultUnreachable = "unreachable"
	faultAmbiguous   = "unclearAnswers"
)

// answered deals with every answer of the API but an acceptance (design: one table, defender.Classify).
func (p *passage) answered(a *defender.Error) (Outcome, error) {
	if a.Class != defender.Ambiguous {
		p.streak.end()
	}
	switch a.Class {
	case defender.Throttled:
		p.Gate.HealthyAgain(faultUnreachable)
		return p.awaitQuota(a.RetryAfter, "throttled")
	case defender.Ambiguous:
		return p.unclear(a)
	case defender.Conflict:
		p.Gate.Healthy()
		return p.adopt(a)
	case defender.NotFound:
		if !a.Empty {
			p.Gate.Healthy()
		}
		return p.notFound(a)
	case defender.Rejected:
		if a.StatusCode != 403 {
			p.Gate.Healthy()
		}
		return p.reject(failure(a))
	}
	if a.Foreign() {
		return p.unclear(a)
	}
	return p.faulted(a)
}

// accepted records the action; from here on the request is never called for again.
func (p *passage) accepted(a defender.MachineAction) (Outcome, error) {
	p.Gate.Healthy()
	p.streak.end()
	p.e.Adopted = p.foreign(a)
	return p.adoptAs(a)
}

// adoptAs makes a the run's action and tells so.
func (p *passage) adoptAs(a defender.MachineAction) (Outcome, error) {
	p.e.accept(a, p.Config.MaxAction)
	p.e.Follow = p.Config.Track
	if p.e.Follow {
		p.e.State = StateSubmitted
	} else {
		p.e.decide(Submitted, nil, false)
	}
	recorded := p.recordAcceptance()
	wrote, err := p.record()
	p.recorded = recorded() && wrote
	if err != nil {
		return Outcome{}, err
	}
	if !wrote {
		return p.step() // mostly it is our own write, of which we did not hear
	}
	p.Metrics.accepted(&p.e)
	if line := p.Log.Check(zap.InfoLevel, "call accepted"); line != nil {
		line.Write(p.about(p.e.ID, zap.String("machine_id", p.e.MachineID),
			zap.String("action_id", a.ID), zap.Bool("adopted", p.e.Adopted), zap.Int("attempts", p.e.Attempts),
			zap.String("correlation_id", p.e.correlationID()))...)
	}
	if p.e.State == StateFinal {
		p.Metrics.decided(&p.e)
	}
	return p.told()
}

// recordAcceptance begins the audit trail's record of an action that is to be followed, beside the entry, for it is true
// whatever becomes of the entry. What it returns waits, and says whether it is stored; if not, told does it again.
func (p *passage) recordAcceptance() func() bool {
	accepted := p.e.acceptance()
	if accepted == nil {
		return func() bool { return false }
	}
	stored := p.Audit.Begin(p.work, accepted.audit())
	return func() bool { return stored() == nil }
}

// foreign says whether an action that answers our call is not of its making: older, with another comment, or known
// to be another request's.
func (p *passage) foreign(a defender.MachineAction) bool {
	if p.m.others(a.ID, p.key) || strings.TrimSpace(a.RequestorComment) != strings.TrimSpace(p.e.Comment) {
		return true
	}
	if !p.clockKnown() || a.CreationTime.IsZero() {
		return false
	}
	called := p.callByAPI()
	if p.e.CalledAt.Before(called) {
		called = p.e.CalledAt // an earlier call of this run may have made it
	}
	return a.CreationTime.Before(called)
}

// record writes what became of a call that took place. It does not give way to a store that is away: only a process
// that ends forgets it, and then the look-ups find it again. wrote is false when another replica's word stands.
func (p *passage) record() (wrote bool, err error) {
	for n := 0; ; n++ {
		err := p.save(0)
		if err == nil {
			return true, nil
		}
		if errors.Is(err, ErrConflict) {
			var over bool
			if over, err = p.merge(); err == nil && !over {
				return false, nil
			} else if err == nil {
				continue
			}
		}
		if p.work.Err() == nil {
			p.Gate.Fault(faultStore, "what became of a call could not be recorded: "+err.Error()+"; check the broker's connection, its disk and the limits of its streams")
		}
		if ended := sleep(p.work, min(p.Config.Backoff.Delay(n), 5*time.Second)); ended != nil {
			return false, fmt.Errorf("the fate of a call stays unrecorded: %w", err)
		}
	}
}

// merge puts an answer that came late over what another process has written meanwhile. Whoever wrote "not accepted"
// is overruled, for the action exists; whoever has an action or a decision was first. An answer without an action
// overrules nobody: the other may be calling by now.
func (p *passage) merge() (over bool, err error) {
	now, err := load(p.work, p.Ledger, p.key)
	if err != nil {
		return false, err
	}
	open := now.State == StateWaiting || now.State == StateCalled || now.State == StateUnknown
	if now.Run == p.e.Run && open && p.e.ActionID != "" {
		p.e.Revision = now.Revision
		p.e.Attempts = max(p.e.Attempts, now.Attempts)
		return true, nil
	}
	if p.e.ActionID != "" && now.ActionID != p.e.ActionID {
		p.Log.Error("an action was accepted for a run that another replica has ended or given another action; see the machine in the portal",
			p.about(p.e.ID, zap.String("machine_id", p.e.MachineID), zap.String("action_id", p.e.ActionID),
				zap.String("recorded_action_id", now.ActionID), zap.String("state", string(now.State)))...)
	}
	p.e, p.stored = now, now.State
	return false, nil
}

// unclear keeps the run at "a call was made" and leaves it to the look-ups.
func (p *passage) unclear(a *defender.Error) (Outcome, error) {
	p.e.State = StateUnknown
	p.e.LookFrom, p.e.LastErr = time.Now().UTC(), failure(a)
	wrote, err := p.record()
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case a.Foreign():
		p.fault(a.Code, a.Reason)
	case p.streak.unclear(p.e.MachineID):
		p.fault(faultAmbiguous, unclearReason(a))
	}
	if !wrote {
		return p.step()
	}
	return Later(p.Config.ReconcileDelay, "unclear"), nil
}

// unreachable ends an attempt that never left this machine in some seconds.
func (p *passage) unreachable(a *defender.Error, since time.Time) (Outcome, error) {
	if p.Defender.Answered().Before(since) {
		return p.outOfReach(a)
	}
	return p.fail(0, "transient", failure(a))
}

func (p *passage) outOfReach(a *defender.Error) (Outcome, error) {
	p.fault(faultUnreachable, "the Defender API cannot be reached: "+a.Error()+"; check DEFENDER_API_URL, name resolution, the proxy and the firewall")
	p.e.LastErr = failure(a)
	return p.handBack(p.Gate.HandBack(), faultUnreachable)
}

// fault closes the gate over what this request met.
func (p *passage) fault(code, reason string) {
	p.Gate.Fault(code, reason)
	p.Gate.meets(p.key)
}

// calm says whether a call may be begun now, else how long the message is to stay away.
func (p *passage) calm() (wait time.Duration, ok bool) {
	if p.probing {
		return 0, true
	}
	wait, ok = p.Gate.permits(p.key, p.d.Probe)
	p.probing = ok && p.d.Probe
	return wait, ok
}

func unclearReason(a *defender.Error) string {
	return fmt.Sprintf("several calls in a row got no clear answer (last: %s); see whether the Defender API or a proxy before it is in trouble. Every one is looked up before it is made again", a.Error())
}

// faulted gives the message back because of a fault of the system: it costs the request nothing.
func (p *passage) faulted(a *defender.Error) (Outcome, error) {
	code := a.Code
	if a.Op == "token" {
		code = "token"
	}
	reason := cmp.Or(a.Reason, a.Error())
	if id := a.Exchange.CorrelationID; id != "" {
		reason += " (correlation id " + id + ")"
	}
	p.fault(code, reason)
	p.e.LastErr = failure(a)
	return p.handBack(p.Gate.HandBack(), "systemFault")
}

// notFound rejects at the second 404: a valid machine now and then answers one (defender-api, "reported as transient").
func (p *passage) notFound(a *defender.Error) (Outcome, error) {
	if p.e.NotFound.IsZero() {
		p.e.NotFound = time.Now().UTC()
	} else if a.Empty && !p.Defender.Answered().After(p.e.NotFound) { // nobody has had an answer of Defender's since
		return p.unclear(a.NotDefender())
	} else if time.Since(p.e.NotFound) >= notFoundTwice {
		return p.reject(failure(a))
	}
	return p.fail(notFoundTwice+100*time.Millisecond, "notFound", failure(a))
}

const notFoundTwice = 5 * time.Second

func failure(a *defender.Error) *Failure {
	f := &Failure{Code: a.Code, Message: a.Message, HTTPStatus: a.StatusCode, Origin: OriginDefender}
	if f.Message == "" {
		f.Message = a.Error()
	}
	return f
}

// streak counts unclear answers in a row over different machines.
type streak struct {
	mu       sync.Mutex
	machines map[string]struct{}
}

const streakLimit = 3

func (s *streak) unclear(machine string) (many bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machines == nil {
		s.machines = map[string]struct{}{}
	}
	if len(s.machines) < streakLimit {
		s.machines[machine] = struct{}{}
	}
	return len(s.machines) >= streakLimit
}

func (s *streak) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.machines)
}
