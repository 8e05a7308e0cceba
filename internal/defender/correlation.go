package defender

import (
	"net/http"
	"time"
)

// Exchange is what one exchange with the API is known by: to Microsoft's support by its correlation id.
type Exchange struct {
	At            time.Time // when it began, by this machine's clock
	Op            string    // "unrestrict", "list", "get"
	StatusCode    int       // 0: no answer
	CorrelationID string    // as the service gave it, printable ASCII; "" if it gave none
}

// correlationHeaders are where an answer may bear the service's id of it. Defender's pages name none, only error.target
// ([doc] common-errors.md); these are those of Azure's services and of Microsoft Graph.
var correlationHeaders = [...]string{"X-Ms-Request-Id", "Request-Id", "X-Ms-Correlation-Request-Id"}

// correlationID is what the first of the headers says that bears one.
func correlationID(h http.Header, token *needles) string {
	for _, name := range correlationHeaders {
		if id := printable(h.Get(name)); id != "" && !token.in([]byte(id)) {
			return id
		}
	}
	return ""
}

const maxCorrelationID = 128

// printable is "" for what is no id: whoever answers may have written anything there, even what he was sent.
func printable(id string) string {
	if len(id) > maxCorrelationID || id != redactLikely(id, maxCorrelationID) {
		return ""
	}
	for i := range len(id) {
		if id[i] < '!' || id[i] > '~' {
			return ""
		}
	}
	return id
}
