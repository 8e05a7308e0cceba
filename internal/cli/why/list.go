package why

import (
	"strings"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/service"
)

// list is `worker why` with a machine or a ticket instead of a request's id.
func (c *Cmd) list(env *session.Env, all []service.KnownRequest) error {
	if c.JSON {
		return session.WriteJSONLine(env.Stdout, struct {
			Of       string                 `json:"of"`
			Requests []service.KnownRequest `json:"requests"`
		}{c.ID, all})
	}
	t := session.NewTable("TIME", "REQUEST", "STATE", "MACHINE", "TICKET", "REQUESTED BY", "WHY")
	for _, k := range all {
		row := k.Row()
		t.Row(admin.Clock(k.Time), session.Claiming(k.RequestID, k.ClaimedID), row.Outcome, k.MachineID, k.Ticket, k.RequestedBy, strings.TrimPrefix(row.Code+": "+row.Message, ": "))
	}
	return t.Fit(env.Stdout)
}
