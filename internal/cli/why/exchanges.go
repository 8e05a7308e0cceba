package why

import (
	"fmt"
	"net/http"
	"slices"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// exchanges adds the looks, and the calls that were not accepted, of the runs in the audit trail and of the current run. The
// ledger forgets them at the end of a run.
func (s *History) exchanges(add adder) {
	runs := s.decided
	if e := s.Entry; e != nil && !slices.ContainsFunc(runs, func(r ledger.AuditRecord) bool { return r.Run == e.Run }) {
		runs = append(slices.Clone(runs), e.Audit())
	}
	for _, r := range runs {
		if r.CallsOmitted > 0 && len(r.Calls) > 0 {
			add(r.Calls[0].Time, r.Run, "looked", "%d earlier exchanges with the API are not kept", r.CallsOmitted)
		}
		for _, c := range r.Calls {
			if what, text := exchange(c); text != "" {
				add(c.Time, r.Run, what, "%s", text)
			}
		}
	}
}

// exchange describes one of them; "" for a call that another event shows.
func exchange(c ledger.Call) (what, text string) {
	switch c.Operation {
	case ledger.OpUnrestrict:
		return "answered", notAccepted(c)
	case ledger.OpList:
		return "looked", "the API was asked for the actions on record" + unlessAnswered(c)
	}
	return "looked", "the API was asked for the action (" + c.Operation + ")" + unlessAnswered(c)
}

// notAccepted describes a call that was not accepted; "" for one that another event shows.
func notAccepted(c ledger.Call) string {
	switch {
	case c.Answered(), c.Class == defender.NotFound.String():
		return ""
	case c.HTTPStatus == http.StatusTooManyRequests:
		return "the API answered " + answer(c) + ": it did not take the call, which is made again later"
	case c.Class == "", c.Class == defender.Ambiguous.String():
		return "the call of this time got " + answer(c) + ": whether it took place is looked up"
	}
	return "the API did not take the call: " + answer(c)
}

func unlessAnswered(c ledger.Call) string {
	if c.Answered() {
		return ""
	}
	return ": " + answer(c)
}

// answer is status and code.
func answer(c ledger.Call) string {
	text := "no answer"
	if c.HTTPStatus != 0 {
		text = fmt.Sprintf("HTTP %d", c.HTTPStatus)
	}
	if c.Code != "" {
		text += " (" + c.Code + ")"
	}
	return text
}
