package defender

import (
	"net/http"
	"strings"
	"time"
)

// Exchange identifies one exchange with the API; Microsoft's support looks it up by its correlation id.
type Exchange struct {
	At            time.Time // when it began, by this machine's clock
	Op            string    // "unrestrict", "list", "get"
	StatusCode    int       // 0: no answer
	CorrelationID string    // as the service gave it, printable ASCII; "" if it gave none
}

// correlationHeaders are the headers in which an answer may have the service's id of it, besides an error's target
// ([doc] common-errors.md). Defender's live answers have the first ([live]); the others are those of Azure's services
// and of Microsoft Graph.
var correlationHeaders = [...]string{"Mise-Correlation-Id", "X-Ms-Request-Id", "Request-Id", "X-Ms-Correlation-Request-Id"}

// correlationID is the id in Defender's own header, else an error's target, else the id in the first of the other
// headers that has one. A 429's target is the tenant, so it is not used.
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

// maxID bounds ids, in bytes: of actions and of exchanges.
const maxID = 128

// printable returns id, or "" if it can't be one: an answer may have anything in its place.
func printable(id string) string {
	if len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r < '!' || r > '~' }) {
		return ""
	}
	return id
}
