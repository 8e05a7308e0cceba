package budget

import "example.com/unrestrict-worker/internal/message"

// Shares of the lanes when several wait.
const (
	urgentRun = 9 // urgent ones in a row, after which one of the others goes
	normalRun = 3 // normal ones, after which bulk goes
)

// Turns decides which lane goes next: urgent first, but at least one of ten calls goes to the others, which share what they
// get 3 to 1. It is a value and has no clock. The order of slots and of calls is decided here alone.
type Turns struct {
	urgent int // in a row
	normal int // since bulk went last
}

// Next is the lane that goes next of those that wait; "": none waits.
func (t Turns) Next(waits func(message.Lane) bool) message.Lane {
	urgent, normal, bulk := waits(message.LaneUrgent), waits(message.LaneNormal), waits(message.LaneBulk)
	switch {
	case urgent && (t.urgent < urgentRun || !normal && !bulk):
		return message.LaneUrgent
	case normal && bulk && t.bulkIsDue():
		return message.LaneBulk
	case normal:
		return message.LaneNormal
	case bulk:
		return message.LaneBulk
	}
	return ""
}

// After returns the state after a call of a lane.
func (t Turns) After(l message.Lane) Turns {
	switch l {
	case message.LaneUrgent:
		t.urgent++
	case message.LaneNormal:
		t.urgent, t.normal = 0, t.normal+1
	case message.LaneBulk:
		t.urgent, t.normal = 0, 0
	}
	return t
}

// floorLane is the lane whose floor applies to a lane now, and whether it must leave one call more, which is due to another
// lane. spent: urgent has used up everything that was kept for it.
func (t Turns) floorLane(l message.Lane, waits func(message.Lane) bool, spent bool) (as message.Lane, yields bool) {
	if spent && t.othersAreDue() && (waits(message.LaneNormal) || waits(message.LaneBulk)) {
		return message.LaneUrgent, l != t.Next(func(one message.Lane) bool { return one != message.LaneUrgent && waits(one) })
	}
	if l != message.LaneUrgent && t.bulkIsDue() && waits(message.LaneBulk) {
		return message.LaneNormal, l == message.LaneNormal
	}
	return l, false
}

func (t Turns) bulkIsDue() bool { return t.normal >= normalRun }

func (t Turns) othersAreDue() bool { return t.urgent >= urgentRun }
