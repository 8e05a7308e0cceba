package main

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// known is one request of a machine or a ticket.
type known struct {
	RequestID string    `json:"requestId"`
	ClaimedID string    `json:"claimedId,omitempty"`
	Run       int       `json:"run,omitempty"`
	State     string    `json:"state"` // queued, the ledger's, or final
	Outcome   string    `json:"outcome,omitempty"`
	MachineID string    `json:"machineId,omitempty"`
	Ticket    string    `json:"ticket,omitempty"`
	SignedBy  string    `json:"signedBy,omitempty"`
	Time      time.Time `json:"time"` // published, taken or told, whatever is known last
}

// requestsOf finds the requests of a machine or a ticket, the oldest first. Results name those that the ledger has
// forgotten, the ledger has the state of the others, and what nobody has taken is in the queue alone.
func requestsOf(ctx context.Context, conn *broker.Broker, name string) ([]known, error) {
	found := map[string]known{}
	mine := func(machine, ticket string) bool { return strings.EqualFold(machine, name) || ticket == name }
	add := func(k known) { found[k.RequestID+"\x00"+k.SignedBy] = k }
	err := conn.Follow(ctx, conn.Names().ResultsStream, broker.FollowOptions{ToPresent: true}, func(m broker.Message) error {
		var r remediation.Result
		if json.Unmarshal(m.Data, &r) == nil && mine(r.MachineID, r.Ticket) {
			add(known{r.RequestID, r.ClaimedID, r.Run, string(remediation.StateFinal), r.Outcome, r.MachineID, r.Ticket, r.SignedBy, m.Time})
		}
		return nil
	})
	if err := cmp.Or(missingIsNone(err), context.Cause(ctx)); err != nil {
		return nil, err
	}
	ledger, err := conn.OpenLedger(ctx)
	if err == nil {
		err = ledger.Search(ctx, func(e remediation.Entry) {
			if mine(e.MachineID, e.Ticket) {
				at := e.DecidedAt
				for _, t := range []time.Time{e.Accepted, e.LastCall, e.ReceivedAt} {
					at = cmp.Or(at, t)
				}
				add(known{e.ID, "", e.Run, string(e.State), e.Outcome, e.MachineID, e.Ticket, e.SignedBy, at})
			}
		})
	}
	if err := missingIsNone(err); err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, k := range found {
		ids[k.RequestID] = true
	}
	s := &story{}
	// Whose a message is that nobody has taken, the workers alone can tell, which know the signers.
	err = s.readQueue(ctx, conn, func(q queued) bool { return mine(q.req.MachineID, q.req.Ticket) && !ids[q.req.ID] })
	for _, q := range s.queued {
		add(known{RequestID: q.req.ID, State: "queued", MachineID: q.req.MachineID, Ticket: q.req.Ticket, Time: q.Time})
	}
	all := slices.SortedFunc(maps.Values(found), func(a, b known) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.RequestID, b.RequestID))
	})
	return all, err
}

func missingIsNone(err error) error {
	if broker.IsMissing(err) {
		return nil
	}
	return err
}

func (c *WhyCmd) list(env *Env, all []known) error {
	if c.JSON {
		return writeJSONLine(env.Stdout, struct {
			Of       string  `json:"of"`
			Requests []known `json:"requests"`
		}{c.ID, all})
	}
	t := newTable("TIME", "REQUEST", "STATE", "MACHINE", "TICKET")
	for _, k := range all {
		state := k.State
		if k.State == string(remediation.StateFinal) {
			state = cmp.Or(k.Outcome, state)
		}
		t.row(clock(k.Time), claiming(k.RequestID, k.ClaimedID), state, k.MachineID, k.Ticket)
	}
	return t.fit(env.Stdout)
}
