package remediation

import (
	"testing"

	"pgregory.net/rapid"

	"example.com/unrestrict-worker/internal/defender"
)

// The streak is long if the answers since the last clear one were unclear for three machines, in whatever order they come.
func TestStreakIsOverAnswersInOrder(t *testing.T) {
	ends := map[defender.Class]bool{defender.Throttled: true, defender.Conflict: true, defender.NotFound: true, defender.Rejected: true, defender.System: true}
	rapid.Check(t, func(t *rapid.T) {
		var r ambiguousRun
		unclear := map[string]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "answers") {
			machine := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "machine")
			var answer *defender.Error
			if rapid.Bool().Draw(t, "refused") {
				answer = &defender.Error{Class: defender.Class(rapid.IntRange(int(defender.Transient), int(defender.Stale)).Draw(t, "class")), StatusCode: 503}
			}
			switch {
			case answer == nil || ends[answer.Class]:
				clear(unclear)
			case answer.Class == defender.Ambiguous:
				unclear[machine] = true
			}
			if long := r.count(machine, answer); long != (len(unclear) >= 3) {
				t.Fatalf("long: %v behind %d machines", long, len(unclear))
			}
		}
	})
}
