package remediation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// glance is what the tracker keeps in mind of an entry. It sees every entry of every replica, so it does not decode them:
// that happens when it tells their end.
type glance struct {
	state                     State
	published, dead, follow   bool
	action                    string
	created, called, accepted time.Time
}

// glanceAt reads only that. errNewer, as of DecodeEntry, but for what is newer within a member.
func glanceAt(rec Record) (glance, error) {
	head, _, _ := bytes.Cut(rec.Value, []byte("\n"))
	var members map[string]json.RawMessage
	if json.Unmarshal(head, &members) != nil || !bytes.HasPrefix(head, []byte(formatPrefix)) {
		e, err := DecodeEntry(rec) // it knows what is wrong
		return glance{e.State, e.Published, e.Dead, e.Follow, e.ActionID, e.Created, e.CalledAt, e.Accepted}, err
	}
	var g glance
	for name, value := range members {
		var err error
		switch name {
		case "state":
			err = json.Unmarshal(value, &g.state)
		case "published":
			err = json.Unmarshal(value, &g.published)
		case "dead":
			err = json.Unmarshal(value, &g.dead)
		case "follow":
			err = json.Unmarshal(value, &g.follow)
		case "actionId":
			err = json.Unmarshal(value, &g.action)
		case "created":
			err = g.created.UnmarshalJSON(value)
		case "calledAt":
			err = g.called.UnmarshalJSON(value)
		case "acceptedAt":
			err = g.accepted.UnmarshalJSON(value)
		default:
			if !entryMembers()[name] {
				return glance{}, errNewer
			}
		}
		if err != nil {
			return glance{}, fmt.Errorf("ledger entry at revision %d: %s: %w", rec.Revision, name, err)
		}
	}
	if !g.state.known() {
		return glance{}, errNewer
	}
	return g, nil
}

// entryMembers are the names of an entry's members in this version.
var entryMembers = sync.OnceValue(func() map[string]bool {
	names := map[string]bool{}
	for field := range reflect.TypeFor[Entry]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names[name] = name != "-"
	}
	return names
})
