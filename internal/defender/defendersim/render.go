package defendersim

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// wireTime has up to seven fraction digits, as the library writes them: live bodies have six and seven.
const wireTime = `"2006-01-02T15:04:05.9999999Z"`

// futureField is a field that no page names. Its numbers do not survive decoding into float64.
const futureField = `,"futureField":{"big":123456789012345678901234567890,"exp":1.50E+3,"text":"\u00e9","list":[1,{"a":null}]}`

// fix renders what never changes of an action: up to its status, up to its last update, and from its scope on.
func (a *action) fix(dnsName string) {
	name := "null"
	if dnsName != "" {
		name = quote(dnsName)
	}
	a.fixed = [3]string{
		fmt.Sprintf(`"id":"%s","type":%s,"title":null,"requestor":%s,"requestorComment":%s,"status":`, a.id, quote(a.kind), quote(a.requestor), quote(a.comment)),
		fmt.Sprintf(`,"machineId":%s,"computerDnsName":%s,"creationDateTimeUtc":%s,"lastUpdateDateTimeUtc":`, quote(a.machineID), name, a.created.Format(wireTime)),
		fmt.Sprintf(`,"scope":%s,"externalId":null,"requestSource":"%s","relatedFileInfo":null,"commands":[],"troubleshootInfo":null`, or(a.scopeJSON, "null"), a.source),
	}
}

// appendEntity appends the action with all documented fields ([doc] machineaction.md, names and nulls as in live
// bodies). context, if any, is the value of @odata.context, which only a reply with a single action has.
func (a *action) appendEntity(b []byte, context string, now time.Time, unknownFields bool) []byte {
	f, result, cancelled := a.fate.Load(), 0, [3]string{"null", "null", "null"}
	status := f.status(now)
	if status == "Failed" {
		result = -2147467259 // E_FAIL [composed]
	}
	if f.cancelledBy != "" {
		cancelled = [3]string{quote(f.cancelledBy), quote(f.comment), f.ends.Format(wireTime)}
	}
	b = append(b, '{')
	if context != "" {
		b = fmt.Appendf(b, `"@odata.context":"%s",`, context)
	}
	b = append(append(append(b, a.fixed[0]...), quote(status)...), a.fixed[1]...)
	b = fmt.Appendf(b, `%s,"cancellationRequestor":%s,"cancellationComment":%s,"cancellationDateTimeUtc":%s,"errorHResult":%d`,
		a.lastUpdate(now).Format(wireTime), cancelled[0], cancelled[1], cancelled[2], result)
	b = append(b, a.fixed[2]...)
	if unknownFields {
		b = append(b, futureField...)
	}
	return append(b, '}')
}

// quote makes a JSON string.
func quote(s string) string {
	odd := func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) }
	if !strings.ContainsFunc(s, odd) { // most are plain, and need no encoder
		return `"` + s + `"`
	}
	text, _ := json.Marshal(s)
	return string(text)
}
