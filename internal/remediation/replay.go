package remediation

import (
	"bytes"
	"strconv"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// replay is the dead letter that a message asks to be carried out again (docs/messages.md).
type replay struct {
	seq   uint64 // 0: the message is no replay
	found bool   // the dead letter still exists
	run   int    // the run that it ended
}

// resolveReplay loads a replay's dead letter, and checks the message against it: the dead letter takes precedence. If it is
// gone, it was replayed already, and only the run that it opened may continue.
func (p *attempt) resolveReplay() (*message.Invalid, error) {
	seq, is, invalid := message.ParseReplay(p.d.Header)
	if invalid != nil || !is {
		return invalid, nil
	}
	p.replay.seq = seq
	header, payload, found, err := p.DeadLetters.Load(p.work, seq)
	if err != nil {
		return nil, err
	}
	if !found {
		header, payload = p.d.Header, p.d.Data
	}
	origin, run, _, err := message.OriginalDelivery(header, payload)
	switch {
	case found && err != nil:
		return &message.Invalid{Code: message.CodeMalformed, Message: "Unrestrict-Replay: " + err.Error()}, nil
	case err == nil && (origin.Stream != p.d.Stream || origin.Subject != p.d.Subject):
		// Deployments may share a stream of dead letters. A request to another deployment, signed for its subject, is not ours.
		return &message.Invalid{Code: message.CodeMalformed, Message: "Unrestrict-Replay: the dead letter is of a request on " + strconv.QuoteToASCII(message.Shorten(origin.Subject, 200)) + " of stream " + strconv.QuoteToASCII(message.Shorten(origin.Stream, 200)) + "; replay it there, or publish a new request here"}, nil
	case found && !bytes.Equal(payload, p.d.Data):
		return &message.Invalid{Code: message.CodeMalformed, Message: "Unrestrict-Replay: the payload differs from the dead letter's; publish it unchanged, or as a new request without this header"}, nil
	case err != nil: // published by other means, without the dead letter's own headers
		origin = p.d
	}
	p.replay.found, p.replay.run = found, run
	p.origin = origin
	return nil, nil
}

// reopen makes the run that the replay opens durable, and then drops the dead letter. A crash in between leaves a dead
// letter whose replay finds the run already open.
func (p *attempt) reopen() error {
	if essenceOf(&p.e) != p.stored {
		if err := p.save(); err != nil {
			return err
		}
	}
	if err := p.Audit.Record(p.work, p.auditReplay()); err != nil {
		return notPublished{err}
	}
	return p.DeadLetters.Drop(p.work, p.replay.seq)
}

// auditReplay is the audit record of a run that a dead letter has opened.
func (p *attempt) auditReplay() ledger.AuditRecord {
	r := p.e.Audit()
	r.Kind, r.Outcome, r.DecidedAt = ledger.AuditReplayed, "", time.Now().UTC()
	return r
}
