// Package health names the conditions that keep waiting requests from being called, or accepted actions from being followed
// (README, promise 4). It has one table of them, so that /readyz, /status, `worker status`, `worker why`, the page, the metric
// unrestrict_condition, the alerts and the runbook use the same names. It imports no other package of this module, and decides
// nothing about requests: each part reports what it sees, and internal/service gathers it.
package health

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Condition is one cause that holds now.
type Condition struct {
	Code     string    `json:"code"` // of the table, or the API's own code for a fault that it named
	Message  string    `json:"message,omitempty"`
	Remedy   string    `json:"remedy,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"` // when it ends by itself; zero: with its cause
	Stops    bool      `json:"stops"`          // no request is taken; if false, something is impaired
	Replicas int       `json:"replicas,omitempty"`
}

// New returns a condition of the table, with a message about this case.
func New(code, message string) Condition {
	row := Lookup(code)
	return Condition{Code: code, Message: cmp.Or(message, row.Means), Remedy: row.Remedy, Stops: row.Stops}
}

// String is the condition in a line.
func (c Condition) String() string { return c.Code + ": " + c.Message }

// Join is several in a line.
func Join(all []Condition) string {
	var texts []string
	for _, c := range all {
		texts = append(texts, c.String())
	}
	return strings.Join(texts, "; ")
}

// HoldingUp returns the conditions that hold up a request: one whose action was accepted, or one that is not called yet.
func HoldingUp(all []Condition, accepted bool) (holding []Condition) {
	for _, c := range all {
		if held := Lookup(c.Code).Holds; accepted && held.Accepted() || !accepted && held.Waiting() {
			holding = append(holding, c)
		}
	}
	return holding
}

// Healthy reports whether nothing stops a replica, and nothing but the API's own limits holds up requests or actions.
func Healthy(all []Condition) bool {
	return !slices.ContainsFunc(all, func(c Condition) bool {
		return c.Stops || Lookup(c.Code).Holds != Nothing && c.Code != WaitingForQuota && c.Code != Throttled
	})
}

// Stopping returns the conditions that stop a replica, and the others.
func Stopping(all []Condition) (stop, impair []Condition) {
	for _, c := range all {
		if c.Stops {
			stop = append(stop, c)
		} else {
			impair = append(impair, c)
		}
	}
	return stop, impair
}

// Notes returns the conditions that nobody needs to do anything about, and the others.
func Notes(all []Condition) (notes, others []Condition) {
	for _, c := range all {
		if Lookup(c.Code).Note {
			notes = append(notes, c)
		} else {
			others = append(others, c)
		}
	}
	return notes, others
}

// Has returns the condition with a code.
func Has(all []Condition, code string) (Condition, bool) {
	i := slices.IndexFunc(all, func(c Condition) bool { return c.Code == code })
	if i < 0 {
		return Condition{}, false
	}
	return all[i], true
}

// Date sets Since, where a condition has none, to the time at which the condition was first seen. before is what Date
// returned the last time.
func Date(before, seen []Condition, now time.Time) []Condition {
	dated := slices.Clone(seen)
	for i, c := range dated {
		if !c.Since.IsZero() {
			continue
		}
		if old, held := Has(before, c.Code); held {
			dated[i].Since = old.Since
		} else {
			dated[i].Since = now.UTC()
		}
	}
	sorted(dated)
	return dated
}

// Merge makes one list of the conditions of all replicas. Each code appears once, with the message of the replica that has had
// it longest, and stops the deployment if it stops any of them.
func Merge(replicas ...[]Condition) []Condition {
	merged := map[string]Condition{}
	var codes []string
	for _, all := range replicas {
		counted := map[string]bool{}
		for _, c := range all {
			have, known := merged[c.Code]
			if !known {
				codes = append(codes, c.Code)
				have = c
				have.Replicas = 0
			}
			if !counted[c.Code] {
				counted[c.Code] = true
				have.Replicas++
			}
			merged[c.Code] = joined(have, c)
		}
	}
	list := make([]Condition, 0, len(codes))
	for _, code := range codes {
		list = append(list, merged[code])
	}
	sorted(list)
	return list
}

func joined(have, c Condition) Condition {
	if c.Since.Before(have.Since) {
		have.Message, have.Remedy, have.Since = c.Message, c.Remedy, c.Since
	}
	if c.Until.IsZero() || !have.Until.IsZero() && c.Until.After(have.Until) {
		have.Until = c.Until
	}
	have.Stops = have.Stops || c.Stops
	return have
}

// sorted moves what stops to the front, and otherwise keeps the order.
func sorted(all []Condition) {
	slices.SortStableFunc(all, func(a, b Condition) int {
		switch {
		case a.Stops == b.Stops:
			return 0
		case a.Stops:
			return -1
		}
		return 1
	})
}
