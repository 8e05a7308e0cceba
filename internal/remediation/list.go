package remediation

import (
	"example.com/unrestrict-worker/internal/defender"
)

// maxPages bounds one look.
const maxPages = 10

// list lists actions, oldest first unless it is told otherwise, and notes the exchanges. A page that the API cut short does
// not prove that an action is absent: what follows is asked for by the last one's time, for links are never followed. No
// machine has so many actions that it takes more than a few pages.
func (p *attempt) list(q defender.Query) (all []defender.MachineAction, err error) {
	for pages := 1; ; pages++ {
		page, err := p.Defender.Page(p.wait, defender.UseLookup, q)
		p.e.AddLook(page.Exchange, err)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Actions...)
		if !page.More || q.Top > 0 {
			return all, nil
		}
		n := len(page.Actions)
		if n == 0 || pages == maxPages || !page.Actions[n-1].CreationTime.After(q.CreatedSince) {
			return nil, &defender.Error{
				Op: "list", Class: defender.Ambiguous, Code: "cutShort", StatusCode: page.Exchange.StatusCode, Sent: true,
				Message: "the list of actions is cut short, so that it shows nothing",
			}
		}
		q.CreatedSince = page.Actions[n-1].CreationTime
	}
}
