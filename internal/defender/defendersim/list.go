package defendersim

import (
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

// listQuery is a list request, understood. $select and options without a $ are taken and do nothing.
type listQuery struct {
	filter predicate
	order  []orderKey
	top    int // -1: not given
	skip   int
	count  bool
}

type orderKey struct {
	value func(*action, time.Time) string // nil: creation time
	desc  bool
}

func (s *Server) list(q *request) reply {
	options, err := url.ParseQuery(q.raw.URL.RawQuery)
	if err != nil {
		return failure(http.StatusBadRequest, "BadRequest", "The query string is not valid.")
	}
	for name := range options {
		if strings.HasPrefix(name, "$") && !slices.Contains([]string{"$filter", "$top", "$skip", "$orderby", "$count", "$select"}, name) {
			// [live]: an empty code, no target
			return reply{status: http.StatusBadRequest, body: []byte(`{"error":{"code":"","message":"The query specified in the URI is not valid. ` +
				`Custom query option '` + strings.Trim(quote(name), `"`) + `' that starts with '$' is not supported.","details":[]}}`)}
		}
	}
	query, err := parseListQuery(options)
	if err != nil {
		return failure(http.StatusBadRequest, "ODataError", "The query specified in the URI is not valid. "+err.Error())
	}
	now := s.now()
	found := s.search(query, now)
	total := len(found)
	found = found[min(query.skip, total):]
	next := ""
	if query.top >= 0 {
		found = found[:min(query.top, len(found))]
	} else if len(found) > s.cfg.PageSize {
		found = found[:s.cfg.PageSize]
		options.Set("$skip", strconv.Itoa(query.skip+s.cfg.PageSize))
		next = baseURL(q.raw) + q.raw.URL.Path + "?" + options.Encode()
	}

	b := make([]byte, 0, 256+len(found)*900)
	b = fmt.Appendf(b, `{"@odata.context":"%s",`, q.context("MachineActions"))
	if query.count {
		b = fmt.Appendf(b, `"@odata.count":%d,`, total)
	}
	b = append(b, `"value":[`...)
	for i, a := range found {
		if i > 0 {
			b = append(b, ',')
		}
		b = a.appendEntity(b, "", now)
	}
	b = append(b, ']')
	if next != "" {
		b = fmt.Appendf(b, `,"@odata.nextLink":%s`, quote(next))
	}
	return reply{status: http.StatusOK, body: append(b, '}')}
}

// search returns the visible actions that match, in the order asked for.
func (s *Server) search(query listQuery, now time.Time) (found []*action) {
	s.book.RLock()
	all := s.book.ordered
	s.book.RUnlock()
	visible := now.Add(-s.cfg.ListLag)
	for _, a := range all {
		if !a.created.After(visible) && query.filter(a, now) {
			found = append(found, a)
		}
	}
	query.sort(found, now)
	return found
}

// sort orders what is ascending by creation time. Without $orderby the newest
// comes first, as in the page's example; a stated order was not found.
func (query listQuery) sort(found []*action, now time.Time) {
	if len(query.order) == 0 || query.order[0].value == nil {
		if len(query.order) == 0 || query.order[0].desc {
			slices.Reverse(found)
		}
		return
	}
	slices.SortStableFunc(found, func(a, b *action) int {
		for _, key := range query.order {
			c := a.created.Compare(b.created)
			if key.value != nil {
				c = strings.Compare(key.value(a, now), key.value(b, now))
			}
			if key.desc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

func parseListQuery(options url.Values) (listQuery, error) {
	query := listQuery{top: -1, filter: func(*action, time.Time) bool { return true }}
	var err error
	if text := options.Get("$filter"); options.Has("$filter") {
		if query.filter, err = parseFilter(text); err != nil {
			return query, err
		}
	}
	if options.Has("$top") {
		if query.top, err = natural(options, "$top"); err != nil {
			return query, err
		}
		if query.top > maxPage {
			return query, badQuery("The limit of '%d' for Top query has been exceeded. The value from the incoming request is '%d'.", maxPage, query.top)
		}
	}
	if query.skip, err = natural(options, "$skip"); err != nil {
		return query, err
	}
	switch text := options.Get("$count"); text {
	case "", "false":
	case "true":
		query.count = true
	default:
		return query, invalidValue(text, "$count")
	}
	query.order, err = parseOrder(options.Get("$orderby"))
	return query, err
}

// queryError is a reason in the API's own words.
type queryError string

func (e queryError) Error() string { return string(e) }

func badQuery(format string, args ...any) error { return queryError(fmt.Sprintf(format, args...)) }

func natural(options url.Values, name string) (int, error) {
	text := options.Get(name)
	if text == "" && !options.Has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, invalidValue(text, name)
	}
	return n, nil
}

func invalidValue(text, option string) error {
	return badQuery("Invalid value '%s' for %s query option found.", text, option)
}

func parseOrder(text string) ([]orderKey, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var keys []orderKey
	for item := range strings.SplitSeq(text, ",") {
		word := strings.Fields(item)
		if len(word) == 0 || len(word) > 2 || len(word) == 2 && word[1] != "asc" && word[1] != "desc" {
			return nil, badQuery("Syntax error in '%s'.", text)
		}
		key := orderKey{desc: len(word) == 2 && word[1] == "desc"}
		if !strings.EqualFold(word[0], "creationDateTimeUtc") {
			if key.value = property(word[0]); key.value == nil {
				return nil, unknownProperty(word[0])
			}
		}
		keys = append(keys, key)
	}
	return keys, nil
}
