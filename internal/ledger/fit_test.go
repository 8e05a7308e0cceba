package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

const fitMachine = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"

// The largest request that may be, and all that can be written about it, fits into a message of LeastMaxPayload; the entry is
// the largest. A broker that takes less gets no request that does not fit, and ordinary ones all the same.
func TestWhatIsTakenFits(t *testing.T) {
	wide := strings.Repeat("\u2028", (message.MaxPayload-200)/3) // twice as large in JSON
	largest := fmt.Sprintf(`{"id":"large","machineId":"%s","comment":"c","ticket":"%s"}`, fitMachine, wide)
	ordinary := fmt.Sprintf(`{"id":"usual","machineId":"%s","comment":"Cleaned and validated","ticket":"INC-4711","requestedBy":"ann@contoso.com","metadata":{"a":[1,2,3]}}`, fitMachine)
	for _, maxPayload := range []int{4 << 10, 10_000, 64 << 10, 100_000, LeastMaxPayload - 1, LeastMaxPayload, 1 << 20, 8 << 20} {
		rules := message.Rules{Stream: "REMEDIATION"}
		room, action := Room(maxPayload)
		rules.Fits = Fits(room)
		if room <= 0 || action < maxPayload/6 || room+action > maxPayload {
			t.Errorf("max_payload %d: %d bytes for a request, %d for an action", maxPayload, room, action)
		}
		if _, invalid := rules.Parse(message.Delivery{Stream: "REMEDIATION", Sequence: 1, Data: []byte(ordinary)}); invalid != nil {
			t.Errorf("max_payload %d: an ordinary request is %v", maxPayload, invalid)
		}
		req, invalid := rules.Parse(message.Delivery{Stream: "REMEDIATION", Sequence: 1, Data: []byte(largest)})
		if invalid != nil {
			if maxPayload >= LeastMaxPayload || invalid.Code != message.CodeTooLarge || invalid.ClaimedID != "large" || req.Ticket != "" || !strings.Contains(invalid.Message, fmt.Sprint(LeastMaxPayload)) {
				t.Errorf("max_payload %d: the largest request is %v", maxPayload, invalid)
			}
			continue
		}
		e := NewEntry(req, message.Delivery{Stream: "REMEDIATION", Sequence: 1}, time.Now(), time.Now())
		e.Action = json.RawMessage(`{"x":"` + strings.Repeat("a", action-8) + `"}`)
		full := &message.Failure{Code: "code", Message: strings.Repeat("m", message.MaxMessage), Origin: message.OriginDefender}
		e.LastError, e.Error = full, full
		for range maxCalls {
			e.addCall(Call{Time: time.Now(), Operation: OpUnrestrict, Class: "ambiguous", HTTPStatus: 500, Code: strings.Repeat("c", 64), CorrelationID: strings.Repeat("c", 64)})
		}
		w, err := e.Write("e.0.1", 0)
		if err != nil || len(w.Value) > maxPayload {
			t.Errorf("max_payload %d: the entry of the largest request has %d bytes, %v", maxPayload, len(w.Value), err)
		}
		if _, _, err := e.Result().Render("/s", message.Trace{}, maxPayload); err != nil {
			t.Errorf("max_payload %d: %v", maxPayload, err)
		}
	}
}
