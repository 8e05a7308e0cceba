package defendersim

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxPage is the API's page, and the most that $top may ask for ([doc] get-machineactions-collection.md).
const maxPage = 10_000

// actionSchema is MachineAction ([doc] machineaction.md): each property, and those that $filter supports.
var actionSchema = schema[*action]{
	set: "MachineActions", kind: "MachineAction", sortedBy: "creationDateTimeUtc", newestFirst: true, names: []string{
		"id", "type", "title", "requestor", "requestorComment", "status", "machineId", "computerDnsName", "creationDateTimeUtc",
		"lastUpdateDateTimeUtc", "cancellationRequestor", "cancellationComment", "cancellationDateTimeUtc", "errorHResult", "scope",
		"externalId", "requestSource", "relatedFileInfo", "commands", "troubleshootInfo",
	}, properties: []property[*action]{
		{name: "id", kind: edmGUID, text: func(a *action, _ time.Time) string { return a.id }},
		{name: "type", kind: edmString, text: func(a *action, _ time.Time) string { return a.kind }},
		{name: "status", kind: edmString, text: (*action).status},
		{name: "machineId", kind: edmString, text: func(a *action, _ time.Time) string { return a.machineID }},
		{name: "requestor", kind: edmString, text: func(a *action, _ time.Time) string { return a.requestor }},
		{name: "creationDateTimeUtc", kind: edmTime, at: func(a *action) time.Time { return a.created }},
	},
}

// list answers with the visible actions.
func (s *Server) list(q *request) reply {
	s.book.RLock()
	all := s.book.ordered
	s.book.RUnlock()
	now := s.now()
	visible := now.Add(-s.conf().ListLag)
	return answerList(s, q, &actionSchema, all, now, func(a *action) bool { return !a.created.After(visible) },
		func(b []byte, a *action) []byte { return a.appendEntity(b, "", now, s.conf().UnknownFields) })
}

// listQuery is a parsed list request. Options without a $ are accepted and ignored.
type listQuery[T any] struct {
	filter predicate[T]
	order  []orderKey[T]
	fields []string // nil: all
	top    int      // -1: not given
	skip   int
	count  bool
}

// answerList answers every list: those of all that are visible and match, in the requested order and range.
func answerList[T any](s *Server, q *request, of *schema[T], all []T, now time.Time, seen func(T) bool, render func([]byte, T) []byte) reply {
	options, err := url.ParseQuery(q.raw.URL.RawQuery)
	if err != nil {
		return failure(http.StatusBadRequest, "BadRequest", "The query string is not valid.")
	}
	query, err := of.parse(options)
	if bad := queryError(""); errors.As(err, &bad) {
		return bad.refusal()
	}
	var found []T
	for _, e := range all {
		if seen(e) && query.filter(e, now) {
			found = append(found, e)
		}
	}
	of.sort(found, query.order, now)
	total, next, page := len(found), "", s.conf().PageSize
	found = found[min(query.skip, total):]
	if query.top >= 0 {
		found = found[:min(query.top, len(found))]
	} else if len(found) > page {
		found, next = found[:page], s.nextLink(q, options, query.skip+page)
	}

	b := make([]byte, 0, 256+len(found)*900)
	b = fmt.Appendf(b, `{"@odata.context":"%s",`, q.context(of.set+selected(query.fields)))
	if query.count {
		b = fmt.Appendf(b, `"@odata.count":%d,`, total)
	}
	b = append(b, `"value":[`...)
	for i, e := range found {
		if i > 0 {
			b = append(b, ',')
		}
		if query.fields == nil {
			b = render(b, e)
		} else {
			b = append(b, project(render(nil, e), query.fields)...)
		}
	}
	b = append(b, ']')
	if next != "" {
		b = fmt.Appendf(b, `,"@odata.nextLink":%s`, quote(next))
	}
	return reply{status: http.StatusOK, body: append(b, '}')}
}

func selected(fields []string) string {
	if fields == nil {
		return ""
	}
	return "(" + strings.Join(fields, ",") + ")"
}

// nextLink: the one on a second page was seen without the options' names, so that a client that follows it starts over
// again and again ([live], for machines).
func (s *Server) nextLink(q *request, options url.Values, skip int) string {
	lost := options.Has("$skip") && s.conf().MalformedNextLink
	options.Set("$skip", strconv.Itoa(skip))
	query := options.Encode()
	if lost {
		query = "=" + url.QueryEscape(options.Get("$filter")) + "&$skip=" + strconv.Itoa(s.conf().PageSize)
	}
	return baseURL(q.raw) + q.raw.URL.Path + "?" + query
}

func (s *schema[T]) parse(options url.Values) (query listQuery[T], err error) {
	for name := range options {
		if strings.HasPrefix(name, "$") && !slices.Contains([]string{"$filter", "$top", "$skip", "$orderby", "$count", "$select"}, name) {
			return query, badQuery("Custom query option '%s' that starts with '$' is not supported.", name) // [live]
		}
	}
	query.filter = func(T, time.Time) bool { return true }
	if options.Has("$filter") {
		if query.filter, err = s.parseFilter(options.Get("$filter")); err != nil {
			return query, err
		}
	}
	if query.top, err = natural(options.Get("$top"), "$top", options.Has("$top"), -1); err != nil {
		return query, err
	}
	if query.skip, err = natural(options.Get("$skip"), "$skip", options.Has("$skip"), 0); err != nil {
		return query, err
	}
	switch text := options.Get("$count"); text {
	case "", "false":
	case "true":
		query.count = true
	default:
		return query, badQuery("Invalid value '%s' for $count query option found.", text)
	}
	if query.fields, err = s.parseSelect(options.Get("$select")); err != nil {
		return query, err
	}
	query.order, err = s.parseOrder(options.Get("$orderby"))
	return query, err
}
