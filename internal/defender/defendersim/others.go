package defendersim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// What other people's clients ask beside machines and their actions, answered as far as they look at it.

// listAlerts: there are none. Connectors ask for one alert to see whether they are let in ([client]).
func (s *Server) listAlerts(q *request) reply {
	return reply{status: http.StatusOK, body: fmt.Appendf(nil, `{"@odata.context":"%s","value":[]}`, q.context("Alerts"))}
}

// refuse is for what would be an action of a kind that is not simulated. Code [doc] common-errors.md, text [composed].
// Connectors try whether they may act by a machine that can't be there ([client]).
func (s *Server) refuse(q *request) reply {
	s.book.RLock()
	defer s.book.RUnlock()
	if !s.exists(q.op.machine) {
		return machineNotFound(q)
	}
	return failure(http.StatusForbidden, "DisallowedOperation", q.op.name+" is not simulated")
}

// investigate starts nothing; the entity is [doc] investigation.md's.
func (s *Server) investigate(q *request) reply {
	if _, _, bad := q.parameters(); bad != nil {
		return *bad
	}
	s.book.RLock()
	defer s.book.RUnlock()
	if !s.exists(q.op.machine) {
		return machineNotFound(q)
	}
	return jsonReply(http.StatusCreated, map[string]any{
		"@odata.context": q.context("Investigations/$entity"), "id": strconv.Itoa(rand.IntN(1_000_000)), "startTime": wire(s.now()),
		"endTime": nil, "state": "Running", "cancelledBy": nil, "statusDetails": nil, "machineId": q.op.machine,
		"computerDnsName": nil, "triggeringAlertId": nil,
	})
}

// indicate keeps nothing: it gives back what was submitted, with an id ([doc] post-ti-indicator.md).
func (s *Server) indicate(q *request) reply {
	var body map[string]any
	if json.Unmarshal(q.body, &body) != nil {
		return failure(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect")
	}
	for _, name := range []string{"indicatorValue", "indicatorType", "action"} {
		if text, _ := body[name].(string); text == "" {
			return failure(http.StatusBadRequest, "MissingRequiredParameter", "Parameter "+name+" is missing.")
		}
	}
	body["@odata.context"], body["id"] = q.context("Indicators/$entity"), strconv.Itoa(rand.IntN(1_000_000))
	body["creationTimeDateTimeUtc"] = wire(s.now())
	return jsonReply(http.StatusOK, body)
}
