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
	now := time.Now().UTC()
	f := &Failure{Code: why.Code, Message: why.Message, Origin: OriginRequest}
	dead := DeadLetter{Delivery: p.d, Code: f.Code, Message: f.Message, RequestID: p.d.Ref(), Run: 1, Time: now}
	if err := p.Publisher.DeadLetter(p.work, dead, p.d.Published); err != nil {
		return Outcome{}, err
	}
	result := Result{
		RequestID: p.d.Ref(), Run: 1, ClaimedID: why.ClaimedID, MachineID: r.MachineID, RequestedBy: r.RequestedBy,
		Ticket: r.Ticket, Batch: r.Batch, Metadata: r.Metadata, Outcome: Rejected, Final: true, Error: f,
		SignedBy: r.SignedBy, ReceivedAt: p.d.Published, FinishedAt: now,
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
	p.Log.Info("message rejected", zap.String("message", p.d.Ref()), zap.String("claimed_id", why.ClaimedID),
		zap.String("code", f.Code), zap.String("why", f.Message), zap.String("signed_by", r.SignedBy))
	return Done(), nil
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
	logDecision(p.Log, &p.e)
	return p.told()
}

// told sees to it that what the ledger has decided was published, and acknowledges. After a crash anywhere in here it
// runs again; the broker and the publisher recognise what was published already.
func (p *passage) told() (Outcome, error) {
	e := &p.e
	if e.Published {
		return Done(), nil
	}
	since := e.DecidedAt
	if e.State == StateSubmitted {
		since = e.Accepted
	}
	if e.Dead {
		if e.Source != p.d.Ref() {
			return Later(2*time.Second, "told"), nil
		}
		if err := p.Publisher.DeadLetter(p.work, p.deadLetter(), since); err != nil {
			return Outcome{}, err
		}
	}
	if err := p.publish(e, since); err != nil {
		return Outcome{}, err
	}
	if e.State == StateSubmitted {
		return Done(), nil // the tracker goes on from the ledger
	}
	e.forget()
	if err := p.save(keep); err != nil {
		return Outcome{}, err
	}
	return Done(), nil
}

// publish does not give way to a broker that is away for a moment: by the time that the message comes again the tracker
// may have ended the run, and nobody tells any more that it was submitted.
func (p *passage) publish(e *Entry, since time.Time) error {
	for n := 0; ; n++ {
		err := p.Publisher.Result(p.work, e.Result(), e.trace(), e.ReplyTo, since)
		if err == nil || e.State != StateSubmitted {
			return err
		}
		p.Gate.Fault(faultStore, "a result could not be published: "+err.Error()+"; check the broker's connection, its disk and the limits of its streams")
		if sleep(p.wait, min(p.Config.Backoff.Delay(n), 5*time.Second)) != nil {
			return err
		}
	}
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

func logDecision(log *zap.Logger, e *Entry) {
	fields := []zap.Field{
		zap.String("request_id", e.ID), zap.Int("run", e.Run), zap.String("machine_id", e.MachineID),
		zap.String("outcome", e.Outcome), zap.Int("attempts", e.Attempts),
	}
	if e.ActionID != "" {
		fields = append(fields, zap.String("action_id", e.ActionID))
	}
	if e.SignedBy != "" {
		fields = append(fields, zap.String("signed_by", e.SignedBy))
	}
	if e.Error != nil {
		fields = append(fields, zap.String("code", e.Error.Code), zap.String("why", e.Error.Message))
	}
	log.Info("request decided", fields...)
}
