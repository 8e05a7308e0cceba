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

// MachineAction is one action on one machine: the fields that the worker uses, and the API's own bytes. Decoding is
// tolerant: an absent field or one of the wrong type is zero, as long as there is an id ([doc] machineaction.md; values
// may be added at any time).
type MachineAction struct {
	ID               string // normally a GUID; at most 128 printable characters
	Type             string // UnrestrictCodeExecution, Isolate, ...
	Status           string // Pending, InProgress, Succeeded, Failed, TimeOut, Cancelled
	MachineID        string // 40 hexadecimal digits
	RequestorComment string // the Comment of the call
	CreationTime     time.Time
	LastUpdateTime   time.Time // lastUpdateDateTimeUtc, or if absent lastUpdateTimeUtc, the older name
	// Raw is the entity exactly as the API sent it, unknown fields included. Only strings that repeat the token are
	// replaced.
	Raw []byte
	// Cut: the entity is larger than Config.MaxAction, so Raw is left out.
	Cut bool
	// Exchange is the exchange that returned the action; zero for an entity of a Page, which has its own.
	Exchange Exchange
}

// Final reports whether the status no longer changes. Any other status, unknown ones included, counts as open.
func (a MachineAction) Final() bool {
	switch a.Status {
	case "Succeeded", "Failed", "TimeOut", "Cancelled", "Canceled":
		return true
	}
	return false
}

// Limits of text fields, in bytes. A longer value is cut there, where it is still too long to equal any expected value.
const (
	maxField   = 64
	maxComment = 64 << 10
)

// lenient accepts the JSON that encoding/json accepts, but matches names exactly: a field that differs only in case
// must not overwrite another.
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

// decodeList decodes a page while it is being received, and applies bound to each entity as it is read. An entity
// without a readable id makes an error, because such a page proves nothing about what is not on it. The readable
// entities are returned along with that error, and so are those that came before the reader failed.
func decodeList(body io.Reader, bound func(*MachineAction)) (Page, error) {
	var list struct {
		Value    *entities `json:"value"`
		NextLink text      `json:"@odata.nextLink"`
	}
	list.Value = &entities{bound: bound}
	in := &piecemeal{Reader: skipBOM(body)}
	in.dec = jsontext.NewDecoder(in, lenient)
	err := json.UnmarshalDecode(in.dec, &list, lenient)
	if _, end := in.dec.ReadToken(); err == nil && !errors.Is(end, io.EOF) {
		err = errNotJSON
	}
	switch {
	case in.err != nil && list.Value != nil && list.Value.unreadable == nil:
		return Page{Actions: list.Value.actions}, fmt.Errorf("read the answer: %w", in.err)
	case in.err != nil:
		return Page{}, fmt.Errorf("read the answer: %w", in.err)
	case errors.Is(err, errTooMany):
		return Page{}, errTooMany
	case err != nil || list.Value == nil || !list.Value.present:
		return Page{}, errNotJSON
	}
	return Page{Actions: list.Value.actions, More: list.NextLink != ""}, list.Value.unreadable
}

// maxEntities bounds a page; the API's largest has 10,000 entities ([doc] get-machineactions-collection.md). Without it
// a small body could hold millions of empty ones.
const maxEntities = 10_000

var errTooMany = fmt.Errorf("the list has more than %d entities", maxEntities)

type entities struct {
	bound      func(*MachineAction)
	present    bool
	actions    []MachineAction
	unreadable error
}

// UnmarshalJSONFrom reads one entity at a time. Each has a copy of its bytes, so that keeping one does not keep the
// whole page in memory.
func (l *entities) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*l = entities{bound: l.bound, present: true}
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

// text is a string, "" if the value has another type.
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

// instant is a DateTimeOffset: 1 to 7 fraction digits, normally with Z. A value that is not a time counts as absent.
type instant struct{ time.Time }

// UnmarshalJSONFrom never fails for a value that is not a time, or whose year JSON can't hold.
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

// inYears reports whether t can be written as JSON. A ledger entry with a time that can't would never be stored.
func inYears(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9999 }
