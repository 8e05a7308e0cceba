package budget

import (
	"strings"
	"testing"

	"example.com/unrestrict-worker/internal/message"
)

// The order of a run of turns, u n b for each, while the same lanes wait all the time.
func TestTurns(t *testing.T) {
	for waits, want := range map[string]string{
		"":    "............",
		"u":   "uuuuuuuuuuuuuuuuuuuuuuuu",
		"n":   "nnnnnnnnnnnn",
		"b":   "bbbbbbbbbbbb",
		"nb":  "nnnbnnnbnnnbnnnb",
		"un":  "uuuuuuuuunuuuuuuuuunuuuuuuuuun",
		"ub":  "uuuuuuuuubuuuuuuuuubuuuuuuuuub",
		"unb": "uuuuuuuuunuuuuuuuuunuuuuuuuuunuuuuuuuuubuuuuuuuuun",
	} {
		var turns Turns
		var order strings.Builder
		for range want {
			l := turns.Next(func(l message.Lane) bool { return strings.Contains(waits, string(l[0])) })
			if turns = turns.After(l); l == "" {
				l = "."
			}
			order.WriteByte(l[0])
		}
		if order.String() != want {
			t.Errorf("of %q went %s, want %s", waits, &order, want)
		}
	}
}

// Who comes after a long run of others has not saved anything up, and need not wait either.
func TestTurnsOfALateComer(t *testing.T) {
	var turns Turns
	for range 1000 {
		turns = turns.After(message.LaneUrgent)
	}
	all := func(message.Lane) bool { return true }
	if l := turns.Next(all); l != message.LaneNormal {
		t.Errorf("after 1000 of urgent alone %s is next, want normal", l)
	}
	if l := turns.After(message.LaneNormal).Next(all); l != message.LaneUrgent {
		t.Errorf("then %s, want urgent", l)
	}
}
