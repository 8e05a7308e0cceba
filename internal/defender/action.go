package defender

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TypeUnrestrict is the type of the actions this client creates.
const TypeUnrestrict = "UnrestrictCodeExecution"

// MachineAction is one action on one machine: the fields the worker decides by, beside the API's own bytes.
// Decoding is tolerant: an absent field or one of a wrong type is zero, as long as there is an id
// ([doc] machineaction.md; values may be added at any time).
type MachineAction struct {
	ID               string // GUID; of whatever it is at most 128 printable characters
	Type             string // UnrestrictCodeExecution, Isolate, ...
	Status           string // Pending, InProgress, Succeeded, Failed, TimeOut, Cancelled
	MachineID        string // 40 hexadecimal digits
	RequestorComment string // the Comment of the call
	CreationTime     time.Time
	LastUpdateTime   time.Time // lastUpdateDateTimeUtc, else the older name lastUpdateTimeUtc
	// Raw is the entity exactly as the API gave it, unknown fields too, but for strings that repeat the token.
	Raw []byte
	// Cut: the entity is larger than Config.MaxAction, and Raw is left out.
	Cut bool
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

// What is kept of a field, in bytes. What is longer is cut, so that it still differs from what it should be.
const (
	maxField   = 64
	maxComment = 64 << 10
)

// lenient takes the JSON that encoding/json takes. Names are matched exactly all the same: a field that differs only in
// case must not overwrite another.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

var (
	errNotJSON  = errors.New("it is not JSON of the form that was asked for")
	errNoAction = errors.New("there is no action with a usable id")
	errAnother  = fmt.Errorf("%w: it is another one", errNoAction)
)

// decodeAction reads one entity; Raw is raw itself.
func decodeAction(raw []byte) (MachineAction, error) {
	var e struct {
		ID        text    `json:"id"`
		Type      text    `json:"type"`
		Status    text    `json:"status"`
		MachineID text    `json:"machineId"`
		Comment   text    `json:"requestorComment"`
		Created   instant `json:"creationDateTimeUtc"`
		Updated   instant `json:"lastUpdateDateTimeUtc"`
		Older     instant `json:"lastUpdateTimeUtc"`
	}
	if json.Unmarshal(raw, &e, lenient) != nil {
		return MachineAction{}, errNotJSON
	}
	if printable(string(e.ID)) == "" {
		return MachineAction{}, errNoAction
	}
	a := MachineAction{
		ID: string(e.ID), Type: e.Type.within(maxField), Status: e.Status.within(maxField), MachineID: e.MachineID.within(maxField),
		RequestorComment: e.Comment.within(maxComment), CreationTime: e.Created.Time, LastUpdateTime: e.Updated.Time, Raw: raw,
	}
	if a.LastUpdateTime.IsZero() {
		a.LastUpdateTime = e.Older.Time
	}
	return a, nil
}

// decodeList reads a page while it comes, and has each entity bounded as it is read. One whose id can't be read is an
// error, for the page then proves nothing about what is not on it; the readable ones are returned along with it.
func decodeList(body io.Reader, bound func(*MachineAction)) (Page, error) {
	var list struct {
		Value    *entities `json:"value"`
		NextLink text      `json:"@odata.nextLink"`
	}
	list.Value = &entities{bound: bound}
	in := &piecemeal{Reader: unmarked(body)}
	in.dec = jsontext.NewDecoder(in, lenient)
	err := json.UnmarshalDecode(in.dec, &list, lenient)
	if _, end := in.dec.ReadToken(); err == nil && !errors.Is(end, io.EOF) {
		err = errNotJSON
	}
	switch {
	case in.err != nil:
		return Page{}, fmt.Errorf("read the answer: %w", in.err)
	case errors.Is(err, errTooMany):
		return Page{}, errTooMany
	case err != nil || list.Value == nil || !list.Value.there:
		return Page{}, errNotJSON
	}
	return Page{Actions: list.Value.actions, More: list.NextLink != ""}, list.Value.unreadable
}

// maxEntities bounds a page: the API's largest has 10,000 ([doc] get-machineactions-collection.md). A small body can hold
// millions of empty ones.
const maxEntities = 10_000

var errTooMany = fmt.Errorf("the list has more than %d entities", maxEntities)

type entities struct {
	bound      func(*MachineAction)
	there      bool
	actions    []MachineAction
	unreadable error
}

// UnmarshalJSONFrom reads one entity at a time. Each has bytes of its own, so that one that is kept keeps no page.
func (l *entities) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*l = entities{bound: l.bound, there: true}
	if dec.PeekKind() != '[' {
		return errNotJSON
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for n := 0; dec.PeekKind() != ']'; n++ {
		if n == maxEntities {
			return errTooMany
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return err
		}
		a, err := decodeAction(raw.Clone())
		if err == nil {
			l.bound(&a)
		}
		if a.ID == "" {
			l.unreadable = fmt.Errorf("entity %d has no usable id", n)
			continue
		}
		l.actions = append(l.actions, a)
	}
	_, err := dec.ReadToken()
	return err
}

// text is a string, "" where something else stands.
type text string

// UnmarshalJSONFrom never fails for a value of another kind.
func (t *text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*t = ""
	if dec.PeekKind() != '"' {
		return dec.SkipValue()
	}
	token, err := dec.ReadToken()
	*t = text(token.String())
	return err
}

// within is t, cut after limit bytes.
func (t text) within(limit int) string {
	if len(t) <= limit {
		return string(t)
	}
	return strings.Clone(string(t[:limit]))
}

// instant is a DateTimeOffset: 1 to 7 fraction digits, normally with Z. What is no time counts as absent.
type instant struct{ time.Time }

// UnmarshalJSONFrom never fails for a value that is no time, nor for one in a year that JSON can't hold.
func (i *instant) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var s text
	*i = instant{}
	err := s.UnmarshalJSONFrom(dec)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, string(s)); err == nil && inYears(t.UTC()) {
			i.Time = t.UTC()
		}
	}
	return err
}

// inYears says whether t can be written as JSON. A ledger entry with a time that can't would never be stored.
func inYears(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9999 }
