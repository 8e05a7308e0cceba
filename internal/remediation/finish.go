package remediation

import (
	"time"

	"go.uber.org/zap"
)

// Codes of the worker's own (contract §4).
const (
	CodeIDConflict      = "idConflict"
	CodeExpired         = "expired"
	CodeTooOld          = "tooOld"
	CodeGaveUp          = "gaveUp"
	CodeFateUnknown     = "fateUnknown"
	CodeTrackTimeout    = "trackTimeout"
	CodeActionVanished  = "actionVanished"
	CodeRestrictedAgain = "restrictedAgain"
	CodePolicy          = "policy"
)

// Origins of a Failure.
const (
	OriginRequest  = "request"
	OriginDefender = "defender"
	OriginWorker   = "worker"
)

// refuse answers a message that has no claim on an id: it is known by its place in the stream. Nothing is written to
// the ledger, for both messages carry ids that the broker knows, so a crash between them publishes neither twice.
func (p *passage) refuse(r Request, why *Invalid) (Outcome, error) {
	p.refused = why.Code
	p.begin()
	r.TraceParent, r.TraceState = p.req.TraceParent, p.req.TraceState
	now, unverified := time.Now().UTC(), why.unverified(r)
	f := &Failure{Code: why.Code, Message: why.Message, Origin: OriginRequest}
	result := Result{
		RequestID: p.d.Ref(), Run: 1, ClaimedID: why.ClaimedID, MachineID: r.MachineID, RequestedBy: r.RequestedBy,
		Ticket: r.Ticket, Batch: r.Batch, Metadata: r.Metadata, Outcome: Rejected, Final: true, Error: f,
		SignedBy: r.SignedBy, ReceivedAt: later(p.began.UTC(), p.d.Published), FinishedAt: now, Unverified: unverified,
	}
	if err := p.recordRefusal(p.auditRefusal(r, result), unverified); err != nil {
		return Outcome{}, err
	}
	dead := DeadLetter{Delivery: p.d, Code: f.Code, Message: f.Message, RequestID: p.d.Ref(), Run: 1, Time: now, Unverified: unverified}
	if err := p.Publisher.DeadLetter(p.work, dead, p.d.Published); err != nil {
		return Outcome{}, err
	}
	if err := p.Publisher.Result(p.work, result, Trace{r.TraceParent, r.TraceState}, r.ReplyTo, p.d.Published); err != nil {
		return Outcome{}, err
	}
	if p.replay.found {
		if err := p.DeadLetters.Drop(p.work, p.replay.seq); err != nil {
			return Outcome{}, err
		}
	}
	p.Metrics.refused(f.Code)
	p.Log.Info("message rejected", p.about(p.d.Ref(), zap.String("claimed_id", why.ClaimedID),
		zap.String("code", f.Code), zap.String("why", f.Message), zap.String("signed_by", r.SignedBy))...)
	return Done(), nil
}

// later is the later of two times. A message is taken after it was published, whatever the clocks say: Publisher.Result
// tells by that whether a result is of this message.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// reject ends the run for good.
func (p *passage) reject(f *Failure) (Outcome, error) {
	return p.bury(Rejected, f)
}

// giveUp ends a run that could not be carried out in time, while others could.
func (p *passage) giveUp() (Outcome, error) {
	f := &Failure{Code: CodeGaveUp, Origin: OriginWorker, Message: "not carried out within WORKER_GIVE_UP_AFTER"}
	if p.e.State == StateUnknown || p.e.State == StateCalled {
		f.Code = CodeFateUnknown
		f.Message = "it could not be found out whether the call took place; see the machine's actions in the portal before it is asked for again"
	}
	if last := p.e.LastErr; last != nil {
		f.Message += "; last: " + last.Code + ": " + last.Message
		f.HTTPStatus = last.HTTPStatus
	}
	return p.bury(Abandoned, f)
}

// bury decides and leaves the dead letter to this message, whose payload nobody else has.
func (p *passage) bury(outcome string, f *Failure) (Outcome, error) {
	p.e.decide(outcome, f, true)
	p.e.Source = p.d.Ref()
	return p.conclude()
}

// conclude makes the decision durable, and only then tells it: whoever loses the write publishes nothing of its own.
func (p *passage) conclude() (Outcome, error) {
	if err := p.save(0); err != nil {
		return Outcome{}, err
	}
	p.Metrics.decided(&p.e)
	p.Log.Info("request decided", p.about(p.e.ID, decision(&p.e)...)...)
	return p.told()
}

// told ends the passage with what there is to tell, which holds no other call up while the consumer has room.
func (p *passage) told() (Outcome, error) {
	p.suspect(false)
	if p.d.Free != nil {
		p.d.Free()
	}
	return p.announce()
}

// announce sees to it that what the ledger has decided was recorded and published, and acknowledges. After a crash anywhere
// in here it runs again; the broker and the publisher recognise what was published already, and the record comes twice.
func (p *passage) announce() (Outcome, error) {
	e := &p.e
	if e.Published {
		return Done(), nil
	}
	if e.Dead && e.Source != p.d.Ref() {
		return Later(2*time.Second, "told"), nil
	}
	if accepted := e.acceptance(); accepted != nil {
		if err := p.tell(accepted); err != nil {
			return Outcome{}, err
		}
	}
	if e.State == StateSubmitted {
		return Done(), nil // the tracker goes on from the ledger
	}
	if err := p.tell(e); err != nil {
		return Outcome{}, err
	}
	e.forget()
	if err := p.save(keep); err != nil {
		return Outcome{}, err
	}
	return Done(), nil
}

// tell records and publishes what e says. Nothing is told that is not in the audit trail.
func (p *passage) tell(e *Entry) error {
	if err := p.Audit.Record(p.work, e.audit()); err != nil {
		return err
	}
	if e.Dead {
		if err := p.Publisher.DeadLetter(p.work, p.deadLetter(), e.since()); err != nil {
			return err
		}
	}
	return p.Publisher.Result(p.telling(e), e.Result(), e.trace(), e.ReplyTo, e.since())
}

func (p *passage) deadLetter() DeadLetter {
	d := p.origin
	d.Stream, d.Sequence = p.d.Stream, p.d.Sequence
	return DeadLetter{
		Delivery: d, Code: p.e.Error.Code, Message: p.e.Error.Message, RequestID: p.e.ID, Run: p.e.Run,
		Attempts: p.e.Attempts, Time: p.e.DecidedAt,
	}
}

func (e *Entry) trace() Trace { return Trace{Parent: e.TraceParent, State: e.TraceState} }

// decision are the fields of the line "request decided".
func decision(e *Entry) []zap.Field {
	fields := []zap.Field{
		zap.Int("run", e.Run), zap.String("machine_id", e.MachineID),
		zap.String("outcome", e.Outcome), zap.Int("attempts", e.Attempts),
	}
	if e.ActionID != "" {
		fields = append(fields, zap.String("action_id", e.ActionID))
	}
	if e.SignedBy != "" {
		fields = append(fields, zap.String("signed_by", e.SignedBy))
	}
	if id := e.correlationID(); id != "" {
		fields = append(fields, zap.String("correlation_id", id))
	}
	if e.Error != nil {
		fields = append(fields, zap.String("code", e.Error.Code), zap.String("why", e.Error.Message))
	}
	return fields
}
