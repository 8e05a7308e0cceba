package remediation_test

import (
	"testing"
	"time"
)

// A replay is lost as little as any other message.
func TestDeathDuringAReplayIsSurvived(t *testing.T) {
	for _, at := range []point{atWaiting, atDrop, atIntent, atMachine, atPost, atRecord, atSubmitted, atAck} {
		for _, done := range []bool{false, true} {
			for _, dies := range []bool{false, true} {
				f := fault{at: at, done: done, dies: dies, times: 1}
				t.Run(f.String()+map[bool]string{true: ", dies", false: ""}[dies], func(t *testing.T) {
					inWorld(t, setup{replicas: 2}, func(w *world) {
						w.api.Inject(rejectOnce)
						w.ask("r1", 1)
						dead := w.lastDead("r1")
						w.faults.inject(f)
						w.replayLetter("r1", dead)
						w.settled(10 * time.Minute)
						if r := w.wantFinal("r1", "succeeded"); r.Run != 2 || r.Attempts > 2 {
							t.Errorf("%+v", r)
						}
						if w.faults.armed() != 0 || w.kept() != 0 || len(w.resultsOf(w.ref(2))) != 0 {
							t.Errorf("%d faults left, %d dead letters kept\n%s", w.faults.armed(), w.kept(), w.dump())
						}
					})
				})
			}
		}
	}
}

// A dead letter can be seen before its run is marked as told. Its replay then waits for that, and is not lost.
func TestReplayBeforeTheRunIsMarkedIsNotLost(t *testing.T) {
	for _, at := range []point{atFinal, atMark} {
		t.Run(string(at), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.api.Inject(rejectOnce)
				w.faults.inject(fault{at: at})
				w.ask("r1", 1)
				w.until("the dead letter", time.Minute, func() bool { w.refresh(); return len(w.letters) == 1 })
				w.replayLetter("r1", w.letters[0])
				w.passes(time.Minute)
				w.faults.clear()
				w.settled(10 * time.Minute)
				w.wantOutcomes("r1", "1 rejected.", "2 submitted", "2 succeeded.")
			})
		})
	}
}
