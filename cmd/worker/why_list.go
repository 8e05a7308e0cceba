package main

import (
	"strings"
)

// list is `worker why` of what is no request's id.
func (c *WhyCmd) list(env *Env, all []known) error {
	if c.JSON {
		return writeJSONLine(env.Stdout, struct {
			Of       string  `json:"of"`
			Requests []known `json:"requests"`
		}{c.ID, all})
	}
	t := newTable("TIME", "REQUEST", "STATE", "MACHINE", "TICKET", "REQUESTED BY", "WHY")
	for _, k := range all {
		row := k.row()
		t.row(clock(k.Time), claiming(k.RequestID, k.ClaimedID), row.Outcome, k.MachineID, k.Ticket, k.RequestedBy, strings.TrimPrefix(row.Code+": "+row.Message, ": "))
	}
	return t.fit(env.Stdout)
}
