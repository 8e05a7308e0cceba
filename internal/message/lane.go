package message

import (
	"fmt"
	"slices"
	"strings"
)

// Lane is one of the three subjects for requests. It decides who goes first.
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

// Suffix is what a lane's name adds to that of normal: "" for normal, otherwise separator and lane.
func (l Lane) Suffix(separator string) string {
	if l == LaneNormal || l == "" {
		return ""
	}
	return separator + string(l)
}

// LaneOf is the lane of a subject, base being that of normal. Any other subject counts as normal: such a message was
// delivered to the consumer of an earlier version.
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

// LaneNames joins the names of lanes for a sentence.
func LaneNames(lanes []Lane) string {
	names := make([]string, len(lanes))
	for i, l := range lanes {
		names[i] = string(l)
	}
	return strings.Join(names, ", ")
}
