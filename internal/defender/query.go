package defender

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Query selects machine actions. Its parts are joined by "and"; the zero value asks for the API's default page.
// Field names and operators: [doc] get-machineactions-collection.md, exposed-apis-odata-samples.md.
type Query struct {
	MachineID    string
	Type         string
	Types        []string  // any of them
	CreatedSince time.Time // creationDateTimeUtc at or after it
	Top          int       // at most 10,000; 0: not sent
	Newest       bool      // newest first, else oldest first
}

// apiTime has the API's own resolution of 100 ns. Formatting truncates, so that a lower bound stays one.
const apiTime = "2006-01-02T15:04:05.0000000Z"

func (q Query) encode() string {
	var parts []string
	if q.MachineID != "" {
		parts = append(parts, "machineId eq "+quote(q.MachineID))
	}
	if q.Type != "" {
		parts = append(parts, "type eq "+quote(q.Type))
	}
	if len(q.Types) > 0 {
		types := make([]string, len(q.Types))
		for i, t := range q.Types {
			types[i] = "type eq " + quote(t)
		}
		parts = append(parts, "("+strings.Join(types, " or ")+")")
	}
	if !q.CreatedSince.IsZero() {
		parts = append(parts, "creationDateTimeUtc ge "+q.CreatedSince.UTC().Format(apiTime))
	}
	order := "creationDateTimeUtc asc"
	if q.Newest {
		order = "creationDateTimeUtc desc"
	}
	out := "$orderby=" + escape(order)
	if len(parts) > 0 {
		out = "$filter=" + escape(strings.Join(parts, " and ")) + "&" + out
	}
	if q.Top > 0 {
		out += "&$top=" + strconv.Itoa(q.Top)
	}
	return out
}

// quote makes an OData string literal: a quote in it is doubled.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// escape writes blanks as %20, which every query parser reads as a blank.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
