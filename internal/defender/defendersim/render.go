package defendersim

import (
	"encoding/json"
	"fmt"
	"time"
)

// wireTime has seven fraction digits, as most live bodies have.
const wireTime = `"2006-01-02T15:04:05.0000000Z"`

// futureField is one that no page names. Its numbers do not survive a decode
// into float64.
const futureField = `"futureField":{"big":123456789012345678901234567890,"exp":1.50E+3,"text":"\u00e9","list":[1,{"a":null}]}`

// appendEntity appends the action with all documented fields ([doc]
// machineaction.md, names and nulls as in live bodies). context, if any, is
// the value of @odata.context, which only a reply of one action bears.
func (a *action) appendEntity(b []byte, context string, now time.Time) []byte {
	f, head, result, cancelled := a.fate.Load(), "", 0, [3]string{"null", "null", "null"}
	if context != "" {
		head = `"@odata.context":"` + context + `",`
	}
	if f.status(now) == "Failed" {
		result = -2147467259 // E_FAIL [composed]
	}
	if f.cancelledBy != "" {
		cancelled = [3]string{quote(f.cancelledBy), quote(f.comment), f.ends.Format(wireTime)}
	}
	return fmt.Appendf(b, `{%s"id":"%s","type":%s,"title":null,"requestor":%s,"requestorComment":%s,"status":%s,"machineId":%s,`+
		`"computerDnsName":%s,"creationDateTimeUtc":%s,"lastUpdateDateTimeUtc":%s,`+
		`"cancellationRequestor":%s,"cancellationComment":%s,"cancellationDateTimeUtc":%s,"errorHResult":%d,"scope":%s,`+
		`"externalId":null,"requestSource":"%s","relatedFileInfo":null,"commands":[],"troubleshootInfo":null,`+futureField+`}`,
		head, a.id, quote(a.kind), quote(a.requestor), a.commentJSON, quote(f.status(now)), quote(a.machineID),
		a.dnsJSON, a.created.Format(wireTime), a.lastUpdate(now).Format(wireTime), cancelled[0], cancelled[1], cancelled[2], result, a.scopeJSON, a.source)
}

// quote makes a JSON string.
func quote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}
