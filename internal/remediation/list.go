package remediation

import (
	"errors"
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

// lookAtAll makes a look at the actions of all machines. The look is not whole if only a look at one machine may succeed.
func (p *attempt) lookAtAll(since time.Time, types ...string) (look, error) {
	actions, first, err := p.list(defender.Query{Types: types, CreatedSince: since, Top: pageSize})
	if answer, is := errors.AsType[*defender.Error](err); is && answer.Class == defender.Ambiguous && answer.StatusCode == 200 {
		return look{}, nil
	}
	if err != nil {
		return look{}, err
	}
	return look{begun: first.At, since: since, whole: true, actions: actions, exchange: first, call: p.e.LastLook()}, nil
}

const (
	maxPages   = 10 // of one look
	roundPages = 30 // of one round of the tracker, which may follow three days of calls at the full quota: 11 pages
)

// list lists actions, oldest first unless the query asks otherwise, and records the exchanges; first is the first of them. A
// page that is full or that the API cut short does not prove that an action is absent, so the next page is requested, by the
// time of the last action: next links are never followed. No machine has so many actions that this takes more than a few
// pages.
func (p *attempt) list(q defender.Query) (all []defender.MachineAction, first defender.Exchange, err error) {
	for pages := 1; ; pages++ {
		page, err := p.Defender.Page(p.wait, defender.UseLookup, q)
		p.e.AddLook(page.Exchange, err)
		if err != nil {
			return nil, first, err
		}
		p.Shared.listed(nil)
		if pages == 1 {
			first = page.Exchange
		}
		all = append(all, page.Actions...)
		if q.MachineID == "" && len(all) > fewActions { // a look is kept until the next one
			for i := range all {
				all[i].Raw = nil
			}
		}
		n := len(page.Actions)
		if n < pageSize && !page.More || q.Newest { // a full page of the requested size may lack a next link
			return all, first, nil
		}
		if n == 0 || pages == maxPages || !page.Actions[n-1].CreationTime.After(q.CreatedSince) {
			return nil, first, cutShort(page)
		}
		q.CreatedSince = page.Actions[n-1].CreationTime
	}
}

func cutShort(page defender.Page) error {
	return &defender.Error{
		Op: "list", Class: defender.Ambiguous, Code: "cutShort", StatusCode: page.Exchange.StatusCode, Sent: true,
		Message: "the list of actions is cut short, so that it shows nothing",
	}
}
