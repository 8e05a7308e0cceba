package remediation

import (
	"bytes"
	"strconv"
	"time"
)

// replay is the dead letter that a message asks to be carried out again (contract §5).
type replay struct {
	seq   uint64 // 0: the message is no replay
	found bool   // the dead letter is still there
	run   int    // the run it ended
}

// unwrap reads a replay: what counts is the dead letter, against which the message is held. A dead letter that is gone
// was replayed already: then only the run that it opened may go on.
func (p *passage) unwrap() (*Invalid, error) {
	seq, is, invalid := ParseReplay(p.d.Header)
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
	origin, run, _, err := OriginalDelivery(header, payload)
	switch {
	case found && err != nil:
		return &Invalid{Code: CodeMalformed, Message: "Unrestrict-Replay: " + err.Error()}, nil
	case err == nil && (origin.Stream != p.d.Stream || origin.Subject != p.d.Subject):
		// Deployments may share a stream of dead letters; what was asked of, and signed for, another one is not ours.
		return &Invalid{Code: CodeMalformed, Message: "Unrestrict-Replay: the dead letter is of a request on " + strconv.QuoteToASCII(shorten(origin.Subject, 200)) + " of stream " + strconv.QuoteToASCII(shorten(origin.Stream, 200)) + "; replay it there, or publish a new request here"}, nil
	case found && !bytes.Equal(payload, p.d.Data):
		return &Invalid{Code: CodeMalformed, Message: "Unrestrict-Replay: the payload differs from the dead letter's; publish it unchanged, or as a new request without this header"}, nil
	case err != nil: // published by other means, without the dead letter's own headers
		origin = p.d
	}
	p.replay.found, p.replay.run = found, run
	p.origin = origin
	return nil, nil
}

// openReplay opens the next run of a request that ended rejected or abandoned. First the run, then the dead letter is
// dropped: a crash between leaves a dead letter whose replay only finds the run that is open already.
func (p *passage) openReplay() (Outcome, error) {
	old := p.e
	ended := old.State == StateFinal && old.Published && (old.Outcome == Rejected || old.Outcome == Abandoned)
	switch {
	case old.ReplayOf == p.replay.seq && old.State != "":
		// This replay's own run: it goes on.
	case !p.replay.found:
		return p.refuse(p.req, &Invalid{
			Code: CodeMalformed, ClaimedID: p.req.ID,
			Message: "Unrestrict-Replay: there is no such dead letter; it was replayed or dropped",
		})
	case old.State == StateFinal && !old.Published && old.Run == p.replay.run:
		// The letter was seen before its run's own message has told all of it.
		return Later(2*time.Second, "told"), nil
	case old.State == "", ended && old.Run == p.replay.run:
		if err := p.holdID(); err != nil {
			return Outcome{}, err
		}
		old.Run = p.replay.run
		p.e = nextRun(old, p.req, p.d, p.origin.Published, p.BrokerNow())
		p.e.ReplayOf = p.replay.seq
		if old.Error != nil && old.Error.Code == CodeFateUnknown {
			p.e.lookFirst(old)
		}
		if err := p.save(0); err != nil {
			return Outcome{}, err
		}
	default:
		// The request has gone on since: the letter is out of date and asks for nothing.
		return Done(), p.DeadLetters.Drop(p.work, p.replay.seq)
	}
	if !p.replay.found {
		return Outcome{}, nil
	}
	if err := p.Audit.Record(p.work, p.auditReplay()); err != nil {
		return Outcome{}, err
	}
	return Outcome{}, p.DeadLetters.Drop(p.work, p.replay.seq)
}
