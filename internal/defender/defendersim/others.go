package defendersim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// Endpoints that other people's clients call besides machines and their actions. They answer what those clients look at.

// listAlerts returns none. Connectors ask for one alert to test whether they are let in ([client]).
func (s *Server) listAlerts(q *request) reply {
	return reply{status: http.StatusOK, body: fmt.Appendf(nil, `{"@odata.context":"%s","value":[]}`, q.context("Alerts"))}
}

// refuse answers calls for actions of a kind that is not simulated. Code [doc] common-errors.md, text [composed].
// Connectors test whether they may act with a machine that can't exist ([client]).
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

// indicate stores nothing: it returns what was submitted, with an id ([doc] post-ti-indicator.md).
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
