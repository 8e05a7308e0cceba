package message

import (
	"fmt"
	"slices"
	"strings"
)

// Lane is one of the three subjects that requests come on. Which one says who goes first.
type Lane string

// The lanes. LaneNormal is the subject itself, the others are below it.
const (
	LaneUrgent Lane = "urgent"
	LaneNormal Lane = "normal"
	LaneBulk   Lane = "bulk"
)

// Lanes returns all lanes, the most urgent first.
func Lanes() []Lane { return []Lane{LaneUrgent, LaneNormal, LaneBulk} }

// Subject is the lane's subject, base being that of normal.
func (l Lane) Subject(base string) string { return base + l.Suffix(".") }

// Suffix is what names the lane after a name that normal has: "" of normal, else the lane after a separator.
func (l Lane) Suffix(separator string) string {
	if l == LaneNormal || l == "" {
		return ""
	}
	return separator + string(l)
}

// LaneOf is the lane of a subject, base being that of normal. A subject that is none of the lanes' counts as normal: it is a
// message that an earlier version's consumer was given.
func LaneOf(base, subject string) Lane {
	for _, l := range Lanes() {
		if subject == l.Subject(base) {
			return l
		}
	}
	return LaneNormal
}

// ParseLane reads the name of a lane.
func ParseLane(name string) (Lane, error) {
	if l := Lane(name); slices.Contains(Lanes(), l) {
		return l, nil
	}
	return "", fmt.Errorf("there is no lane %q: it is one of %s", name, LaneNames(Lanes()))
}

// LaneNames are the names of lanes, as a sentence lists them.
func LaneNames(lanes []Lane) string {
	names := make([]string, len(lanes))
	for i, l := range lanes {
		names[i] = string(l)
	}
	return strings.Join(names, ", ")
}
