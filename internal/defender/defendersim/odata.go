package defendersim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// edm is the type of a property. The key of a machine action is Edm.Guid, that of a machine Edm.String ([live]).
type edm string

const (
	edmString edm = "Edm.String"
	edmGUID   edm = "Edm.Guid"
	edmTime   edm = "Edm.DateTimeOffset"
)

// property is one that can be filtered and ordered by.
type property[T any] struct {
	name string
	kind edm
	text func(T, time.Time) string // nil for Edm.DateTimeOffset
	at   func(T) time.Time
}

func (p *property[T]) compare(a, b T, now time.Time) int {
	if p.kind == edmTime {
		return p.at(a).Compare(p.at(b))
	}
	return strings.Compare(p.text(a, now), p.text(b, now))
}

// schema describes an entity set.
type schema[T any] struct {
	set, kind   string   // MachineActions, MachineAction
	names       []string // all properties, as they are sent
	properties  []property[T]
	sortedBy    string // the property that the entities are already sorted by, ascending; "": none
	newestFirst bool   // without $orderby
}

func (s *schema[T]) unknown(name string) error {
	return badQuery("Could not find a property named '%s' on type 'microsoft.windowsDefenderATP.api.%s'.", name, s.kind)
}

// find looks a property up by its name, in any case; nil: none that can be filtered by.
func (s *schema[T]) find(name string) *property[T] {
	for i := range s.properties {
		if strings.EqualFold(s.properties[i].name, name) {
			return &s.properties[i]
		}
	}
	return nil
}

// queryError is a reason in the library's own words.
type queryError string

func (e queryError) Error() string { return string(e) }

func badQuery(format string, args ...any) error { return queryError(fmt.Sprintf(format, args...)) }

// refusal is the library's answer to an invalid query: an empty code, no target ([live]). The documented code is
// ODataError.
func (e queryError) refusal() reply {
	message := quote("The query specified in the URI is not valid. " + string(e))
	return reply{status: http.StatusBadRequest, body: []byte(`{"error":{"code":"","message":` + message + `,"details":[]}}`)}
}

// project returns what $select names of an entity, in its order.
func project(entity []byte, names []string) []byte {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(entity, &all) // our own
	b := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q:%s", name, all[name])
	}
	return append(b, '}')
}

// parseSelect returns the names as they are sent; nil: everything.
func (s *schema[T]) parseSelect(text string) (names []string, err error) {
	if strings.TrimSpace(text) == "" || strings.TrimSpace(text) == "*" {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		at := slices.IndexFunc(s.names, func(name string) bool { return strings.EqualFold(name, word) })
		if at < 0 {
			return nil, s.unknown(word)
		}
		names = append(names, s.names[at])
	}
	return names, nil
}

// orderKey is one key of $orderby.
type orderKey[T any] struct {
	*property[T]
	desc bool
}

func (s *schema[T]) parseOrder(text string) (keys []orderKey[T], err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		word := strings.Fields(item)
		if len(word) == 0 || len(word) > 2 || len(word) == 2 && word[1] != "asc" && word[1] != "desc" {
			return nil, badQuery("Syntax error in '%s'.", text)
		}
		key := orderKey[T]{s.find(word[0]), len(word) == 2 && word[1] == "desc"}
		if key.property == nil {
			return nil, s.unknown(word[0])
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// sort expects entities in ascending order of sortedBy. Without $orderby the newest action comes first, as in the
// page's example; no documented order was found.
func (s *schema[T]) sort(found []T, order []orderKey[T], now time.Time) {
	if len(order) == 0 || order[0].name == s.sortedBy {
		if len(order) == 0 && s.newestFirst || len(order) > 0 && order[0].desc {
			slices.Reverse(found)
		}
		return
	}
	slices.SortStableFunc(found, func(a, b T) int {
		for _, key := range order {
			c := key.compare(a, b, now)
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

// natural parses $top and $skip; without is the value if the option is not given.
func natural(text, option string, given bool, without int) (int, error) {
	if !given {
		return without, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, badQuery("Invalid value '%s' for %s query option found.", text, option)
	}
	if option == "$top" && n > maxPage {
		return 0, badQuery("The limit of '%d' for Top query has been exceeded. The value from the incoming request is '%d'.", maxPage, n)
	}
	return n, nil
}
