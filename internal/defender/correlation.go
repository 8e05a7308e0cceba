package defender

import (
	"net/http"
	"strings"
	"time"
)

// Exchange is what one exchange with the API is known by: to Microsoft's support by its correlation id.
type Exchange struct {
	At            time.Time // when it began, by this machine's clock
	Op            string    // "unrestrict", "list", "get"
	StatusCode    int       // 0: no answer
	CorrelationID string    // as the service gave it, printable ASCII; "" if it gave none
}

// correlationHeaders are where an answer may bear the service's id of it, beside an error's target ([doc] common-errors.md).
// Defender's live answers have the first ([live]); the others are those of Azure's services and of Microsoft Graph.
var correlationHeaders = [...]string{"Mise-Correlation-Id", "X-Ms-Request-Id", "Request-Id", "X-Ms-Correlation-Request-Id"}

// correlationID is Defender's own header, else an error's target, else what the first of the other headers says that bears
// an id. A 429's target is the tenant.
func correlationID(h http.Header, envelope *Envelope, status int, token *secret) string {
	ids := []string{h.Get(correlationHeaders[0])}
	if envelope != nil && status != http.StatusTooManyRequests {
		ids = append(ids, envelope.Target)
	}
	for _, name := range correlationHeaders[1:] {
		ids = append(ids, h.Get(name))
	}
	for _, id := range ids {
		if printable(id) != "" && !token.in([]byte(id)) {
			return id
		}
	}
	return ""
}

// maxID bounds ids: an action's, and those of exchanges.
const maxID = 128

// printable is "" for what is no id: whoever answers may have written anything there.
func printable(id string) string {
	if len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r < '!' || r > '~' }) {
		return ""
	}
	return id
}
