package defendersim

import (
	"encoding/json"
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
	f := a.fate.Load()
	b = append(b, '{')
	if context != "" {
		b = append(b, `"@odata.context":"`...)
		b = append(b, context...)
		b = append(b, `",`...)
	}
	b = append(b, `"id":"`...)
	b = append(b, a.id...)
	b = append(b, `","type":`...)
	b = appendString(b, a.kind)
	b = append(b, `,"title":null,"requestor":`...)
	b = appendString(b, a.requestor)
	b = append(b, `,"requestorComment":`...)
	b = append(b, a.commentJSON...)
	b = append(b, `,"status":`...)
	b = appendString(b, f.status(now))
	b = append(b, `,"machineId":`...)
	b = appendString(b, a.machineID)
	b = append(b, `,"computerDnsName":`...)
	b = append(b, a.dnsJSON...)
	b = append(b, `,"creationDateTimeUtc":`...)
	b = a.created.AppendFormat(b, wireTime)
	b = append(b, `,"lastUpdateDateTimeUtc":`...)
	b = a.lastUpdate(now).AppendFormat(b, wireTime)
	b = f.appendCancellation(b)
	b = append(b, `,"errorHResult":`...)
	if f.status(now) == "Failed" {
		b = append(b, "-2147467259"...) // E_FAIL [composed]
	} else {
		b = append(b, '0')
	}
	b = append(b, `,"scope":`...)
	b = append(b, a.scopeJSON...)
	b = append(b, `,"externalId":null,"requestSource":"`...)
	b = append(b, a.source...)
	b = append(b, `","relatedFileInfo":null,"commands":[],"troubleshootInfo":null,`...)
	b = append(b, futureField...)
	return append(b, '}')
}

func (f *fate) appendCancellation(b []byte) []byte {
	if f.cancelledBy == "" {
		return append(b, `,"cancellationRequestor":null,"cancellationComment":null,"cancellationDateTimeUtc":null`...)
	}
	b = append(b, `,"cancellationRequestor":`...)
	b = appendString(b, f.cancelledBy)
	b = append(b, `,"cancellationComment":`...)
	b = appendString(b, f.comment)
	b = append(b, `,"cancellationDateTimeUtc":`...)
	return f.ends.AppendFormat(b, wireTime)
}

// appendString appends a JSON string; most are plain and need no encoder.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := json.Marshal(s)
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
