package why

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/deadletter"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Because is a failure in parentheses, "" for none.
func Because(f *message.Failure) string {
	if f == nil {
		return ""
	}
	return " (" + f.Code + ": " + f.Message + ")"
}

// historyView is a History in JSON.
type historyView struct {
	RequestID string                  `json:"requestId"`
	ClaimedID string                  `json:"claimedId,omitempty"` // if the message does not own the id that it gives itself
	SignedBy  string                  `json:"signedBy,omitempty"`
	Client    string                  `json:"client,omitempty"`
	State     string                  `json:"state"`
	Run       int                     `json:"run,omitempty"`
	MachineID string                  `json:"machineId,omitempty"`
	ActionID  string                  `json:"actionId,omitempty"`
	Attempts  int                     `json:"attempts"`
	Looks     int                     `json:"looks,omitempty"`
	NotBefore *time.Time              `json:"notBefore,omitempty"`
	LastError *message.Failure        `json:"lastError,omitempty"`
	Outcome   string                  `json:"outcome,omitempty"`
	WaitsFor  []string                `json:"waitsFor"`
	Queue     *service.Place          `json:"queue,omitempty"`
	Events    []event                 `json:"events"`
	Letters   []deadletter.LetterView `json:"deadLetters"`
}

func (s *History) view(n broker.Names) historyView {
	v := historyView{
		RequestID: s.id, ClaimedID: s.claimed(), SignedBy: s.signedBy, Client: s.client, State: s.state(), MachineID: s.about().MachineID, WaitsFor: append([]string{}, s.waits...),
		Queue: s.place, Events: s.events(), Letters: []deadletter.LetterView{},
	}
	if e := s.Entry; e != nil {
		v.Run, v.ActionID, v.Attempts, v.Looks, v.LastError, v.Outcome = e.Run, e.ActionID, e.Attempts, e.Looks, e.LastError, e.Outcome
		if !e.NotBefore.IsZero() {
			v.NotBefore = &e.NotBefore
		}
	} else if t, ended := s.ended(); ended {
		v.Run, v.Attempts, v.Outcome = t.result.Run, t.result.Attempts, t.result.Outcome
	}
	for _, l := range s.letters {
		v.Letters = append(v.Letters, l.View(n))
	}
	return v
}

// state is one word: queued, the ledger's, vanished (accepted, and the ledger has lost it), or final.
func (s *History) state() string {
	switch {
	case s.Entry != nil:
		return string(s.Entry.State)
	case len(s.Queued) > 0:
		return "queued"
	case s.unfinished():
		return "vanished"
	}
	return string(ledger.StateFinal)
}

// Story is the history for people, on the page as in a terminal.
func (s *History) Story() (story admin.Story) {
	fact := func(name string, warn bool, texts ...string) {
		if strings.Join(texts, "") != "" {
			story.Facts = append(story.Facts, admin.Fact{Name: name, Texts: texts, Warn: warn})
		}
	}
	fact("note", false, s.notes...)
	fact(admin.FactRequest, false, s.id)
	fact("claimed id", false, s.claimed())
	fact("signed by", false, s.signedBy)
	fact("client", false, s.client)
	about := s.about()
	fact("machine", false, cmp.Or(about.MachineID, "not readable"))
	fact("ticket", false, about.Ticket)
	fact("requested by", false, about.RequestedBy)
	fact("comment", false, cmp.Or(about.Comment, s.comment))
	fact("state", false, s.stateText())
	if len(s.waits) > 0 {
		fact("waits for", true, s.waits...)
	} else {
		fact("waits for", false, "nothing: it has ended")
	}
	for _, e := range s.events() {
		story.Events = append(story.Events, admin.Event{Time: e.Time, Run: e.Run, Text: e.Text})
	}
	return story
}

// claimed returns the id that its message gave itself without owning it.
func (s *History) claimed() string {
	for _, l := range s.letters {
		if l.Claimed != "" {
			return l.Claimed
		}
	}
	for _, t := range s.results {
		if t.result.RequestID == s.id && t.result.ClaimedID != "" {
			return t.result.ClaimedID
		}
	}
	for _, q := range s.Queued {
		if claimed := q.AsResult().ClaimedID; claimed != "" {
			return claimed
		}
	}
	return ""
}

// about returns the content of the request, as far as it is still known.
func (s *History) about() (r message.Request) {
	switch {
	case s.Entry != nil:
		r.MachineID, r.Ticket, r.RequestedBy, r.Comment = s.Entry.MachineID, s.Entry.Ticket, s.Entry.RequestedBy, s.Entry.Comment
	case len(s.Queued) > 0:
		return s.Queued[0].Req
	case len(s.results) > 0:
		last := s.results[0].result
		r.MachineID, r.Ticket, r.RequestedBy = last.MachineID, last.Ticket, last.RequestedBy
	}
	return r
}

// write writes a story to a screen.
func write(story admin.Story, out session.Screen) error {
	for _, f := range story.Facts {
		name, colour := f.Name, ""
		if f.Warn {
			colour = session.Yellow
		}
		for _, text := range f.Texts {
			if err := out.Field(name, colour, text); err != nil {
				return err
			}
			name = ""
		}
	}
	var b strings.Builder
	b.WriteByte('\n')
	run := 0
	for _, e := range story.Events {
		if e.Run > 1 && e.Run != run {
			fmt.Fprintf(&b, "run %d\n", e.Run)
		}
		run = max(run, e.Run)
		at := admin.Clock(e.Time) + "  "
		text := session.Wrap(session.Plain(e.Text), max(out.Width-len(at), 30))
		fmt.Fprintf(&b, "%s%s\n", at, strings.Join(text, "\n"+strings.Repeat(" ", len(at))))
	}
	_, err := fmt.Fprint(out.Out, b.String())
	return err
}

// stateText is the state in words.
func (s *History) stateText() string {
	e := s.Entry
	if e == nil {
		if t, ended := s.ended(); ended {
			return "ended: " + t.result.Outcome
		}
		if len(s.Queued) > 0 {
			return "queued; no replica has taken it yet, or one has, and has not begun"
		}
		if s.unfinished() {
			return "accepted; the ledger has lost it before its end"
		}
		return "ended; the ledger has forgotten it"
	}
	run := ""
	if e.Run > 1 {
		run = fmt.Sprintf(", run %d", e.Run)
	}
	return map[ledger.State]string{
		ledger.StateWaiting:   "waiting to be called",
		ledger.StateCalled:    "being called",
		ledger.StateUnknown:   "called; whether the call took place is not known yet",
		ledger.StateSubmitted: "accepted by the API",
		ledger.StateFinal:     "ended: " + e.Outcome,
	}[e.State] + run
}
