package defender

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// TypeUnrestrict is the type of the actions this client creates.
const TypeUnrestrict = "UnrestrictCodeExecution"

// MachineAction is one action on one machine: the fields the worker decides by, beside the API's own bytes.
// Decoding is tolerant: an absent field or one of a wrong type is zero, as long as the id can be read
// ([doc] machineaction.md; values may be added at any time).
type MachineAction struct {
	ID               string // GUID
	Type             string // UnrestrictCodeExecution, Isolate, ...
	Status           string // Pending, InProgress, Succeeded, Failed, TimeOut, Cancelled
	MachineID        string // 40 hexadecimal digits
	Requestor        string // of an app a GUID or its display name
	RequestorComment string // the Comment of the call
	CreationTime     time.Time
	LastUpdateTime   time.Time // lastUpdateDateTimeUtc, else the older name lastUpdateTimeUtc
	// Raw is the entity exactly as the API gave it, unknown fields too.
	Raw json.RawMessage
	// Exchange gave it; zero for an entity of a Page, which has its own.
	Exchange Exchange
}

// Final says that the status is one that no longer changes. Everything else, unknown statuses too, is open.
func (a MachineAction) Final() bool {
	switch a.Status {
	case "Succeeded", "Failed", "TimeOut", "Cancelled", "Canceled":
		return true
	}
	return false
}

var errNoID = errors.New("the entity has no readable id")

// decodeAction reads one entity. Names are matched exactly: encoding/json would let a field that differs
// only in case overwrite another.
func decodeAction(raw json.RawMessage) (MachineAction, error) {
	object := bytes.TrimLeft(raw, " \t\r\n")
	if !json.Valid(raw) || object[0] != '{' {
		if err := json.Unmarshal(raw, new(struct{})); err != nil {
			return MachineAction{}, fmt.Errorf("decode the entity: %w", err)
		}
		return MachineAction{}, errNoID // null
	}
	a := MachineAction{Raw: raw}
	var older time.Time
	for name, value := range Members(object) {
		switch name {
		case "id":
			a.ID = text(value)
		case "type":
			a.Type = text(value)
		case "status":
			a.Status = text(value)
		case "machineId":
			a.MachineID = text(value)
		case "requestor":
			a.Requestor = text(value)
		case "requestorComment":
			a.RequestorComment = text(value)
		case "creationDateTimeUtc":
			a.CreationTime = instant(value)
		case "lastUpdateDateTimeUtc":
			a.LastUpdateTime = instant(value)
		case "lastUpdateTimeUtc":
			older = instant(value)
		}
	}
	if a.LastUpdateTime.IsZero() {
		a.LastUpdateTime = older
	}
	if strings.TrimSpace(a.ID) == "" {
		return MachineAction{}, errNoID
	}
	return a, nil
}

// maxEntities bounds a page: the API's largest has 10,000 ([doc] get-machineactions-collection.md). A small body can hold
// millions of empty ones.
const maxEntities = 10_000

// decodeList reads a page. An entity whose id can't be read is an error, for the page then proves nothing
// about what is not on it; the readable ones are returned along with it.
func decodeList(body []byte) (Page, error) {
	if !json.Valid(body) || body[0] != '{' {
		return Page{}, errors.New("the list is no JSON object")
	}
	var value json.RawMessage
	var page Page
	for name, v := range Members(body) {
		switch name {
		case "value":
			value = v
		case "@odata.nextLink":
			page.More = text(v) != ""
		}
	}
	if len(value) == 0 || value[0] != '[' {
		return Page{}, errors.New("the list has no value")
	}
	var unreadable error
	n := 0
	for raw := range elements(value) {
		if n++; n > maxEntities {
			return Page{}, fmt.Errorf("the list has more than %d entities", maxEntities)
		}
		a, err := decodeAction(raw)
		if err != nil {
			unreadable = fmt.Errorf("entity %d: %w", n-1, err)
			continue
		}
		page.Actions = append(page.Actions, a)
	}
	return page, unreadable
}

// entity strips what may stand around a JSON value: a byte order mark and blanks.
func entity(body []byte) []byte {
	return bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
}

// Members are the names and values of a JSON object, which must be valid and begin with its brace, in their order: what a map of raw messages would hold, at a
// fraction of its cost, for there may be a page of ten thousand.
func Members(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for i := 0; ; {
			quote := bytes.IndexByte(object[i:], '"')
			if quote < 0 {
				return
			}
			from := i + quote
			to, _ := stringEnd(object, from)
			colon := to + bytes.IndexByte(object[to:], ':')
			i = valueEnd(object, colon+1)
			if !yield(text(object[from:to]), bytes.TrimSpace(object[colon+1:i])) || object[i] == '}' {
				return
			}
		}
	}
}

// elements are those of a valid JSON array.
func elements(array []byte) iter.Seq[json.RawMessage] {
	return func(yield func(json.RawMessage) bool) {
		for i := 0; array[i] != ']'; {
			from := i + 1
			i = valueEnd(array, from)
			raw := bytes.TrimSpace(array[from:i])
			if len(raw) == 0 || !yield(raw) { // nothing: the array is empty
				return
			}
		}
	}
}

// valueEnd is where the value that begins at i ends: at its comma, or the bracket of what it is in.
func valueEnd(within []byte, i int) int {
	for depth := 0; ; i++ {
		switch within[i] {
		case '"':
			i, _ = stringEnd(within, i)
			i--
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
}

// text is a string, "" for everything else.
func text(raw json.RawMessage) string {
	if n := len(raw); n >= 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : n-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// instant reads a DateTimeOffset: 1 to 7 fraction digits, normally with Z.
func instant(raw json.RawMessage) time.Time {
	s := text(raw)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
