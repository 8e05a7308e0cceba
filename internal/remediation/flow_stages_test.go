package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// stage is what unrestrict_stage_duration_seconds has of one stage.
type stage struct {
	runs uint64
	sum  time.Duration
}

func (w *world) stages() map[string]stage {
	w.t.Helper()
	families, err := w.registry.Gather()
	w.must(err)
	all := map[string]stage{}
	for _, f := range families {
		if f.GetName() == "unrestrict_stage_duration_seconds" {
			for _, m := range f.GetMetric() {
				h := m.GetHistogram()
				all[m.GetLabel()[0].GetValue()] = stage{h.GetSampleCount(), time.Duration(h.GetSampleSum() * float64(time.Second)).Round(time.Second)}
			}
		}
	}
	return all
}

// Each way a run can go tells the stages it went through, once, in the time that they took.
func TestStages(t *testing.T) {
	const long = 3 * time.Hour
	for name, c := range map[string]struct {
		fault defendersim.Fault
		set   setup
		ask   func(w *world)
		want  map[string]stage
	}{
		"followed": {
			ask:  func(w *world) { w.ask("r1", 1) },
			want: map[string]stage{"queue": {1, 0}, "quota": {1, 0}, "api": {1, 2 * time.Second}, "device": {1, 17 * time.Second}},
		},
		"queued": {
			set: setup{replicas: -1, submit: untracked}, ask: func(w *world) { w.ask("r1", 1); w.passes(long); w.start() },
			want: map[string]stage{"queue": {1, long}, "quota": {1, 0}, "api": {1, 2 * time.Second}},
		},
		"throttled": {
			set: setup{submit: untracked}, ask: func(w *world) { w.ask("r1", 1) },
			fault: defendersim.Fault{Op: "unrestrict", Status: 429, RetryAfter: 4 * time.Minute, Times: 1},
			want:  map[string]stage{"queue": {1, 0}, "quota": {1, 4 * time.Minute}, "api": {1, 4 * time.Second}},
		},
		"throttled, another replica goes on": {
			set: setup{submit: untracked, replicas: 2}, ask: func(w *world) {
				w.ask("r1", 1)
				w.passes(time.Minute)
				w.replicas[0].kill()
			},
			fault: defendersim.Fault{Op: "unrestrict", Status: 429, RetryAfter: 4 * time.Minute, Times: 1},
			want:  map[string]stage{"queue": {1, 0}, "quota": {1, 4 * time.Minute}, "api": {1, 4 * time.Second}},
		},
		"rejected": {
			ask:   func(w *world) { w.ask("r1", 1) },
			fault: defendersim.Fault{Op: "unrestrict", Status: 400, Code: "ClientVersionNotSupported"},
			want:  map[string]stage{"queue": {1, 0}, "quota": {1, 0}, "api": {1, 2 * time.Second}},
		},
		"expired": {
			ask:  func(w *world) { w.ask("r1", 1, expiresIn(-time.Second)) },
			want: map[string]stage{"queue": {1, 0}},
		},
		"lost answer": {
			set: setup{submit: untracked}, ask: func(w *world) { w.ask("r1", 1) },
			fault: defendersim.Fault{Op: "unrestrict", Status: 500, CarriedOut: true, Times: 1},
			want:  map[string]stage{"queue": {1, 0}, "quota": {1, 0}, "api": {1, 2 * time.Second}},
		},
		"lost answer, look-up throttled": {
			set: setup{submit: untracked}, ask: func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "list", Status: 429, RetryAfter: 4 * time.Minute, Times: 1})
				w.ask("r1", 1)
			},
			fault: defendersim.Fault{Op: "unrestrict", Status: 500, CarriedOut: true, Times: 1},
			want:  map[string]stage{"queue": {1, 0}, "quota": {1, 4*time.Minute + 2*time.Second}, "api": {1, 2 * time.Second}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.set.api.Latency = 2 * time.Second
			inWorld(t, c.set, func(w *world) {
				if c.fault.Op != "" {
					w.api.Inject(c.fault)
				}
				c.ask(w)
				w.settled(time.Hour)
				if diff := cmp.Diff(c.want, w.stages(), cmp.AllowUnexported(stage{})); diff != "" {
					t.Errorf("%s\n%s", diff, w.dump())
				}
			})
		})
	}
}

// A stage is told once at most, whoever dies and whatever is delivered again.
func TestStagesAreToldOnce(t *testing.T) {
	for _, at := range []point{atIntent, atPost, atRecord, atSubmitted, atAck, atDecision, atFinal} {
		for _, dies := range []bool{false, true} {
			f := fault{at: at, done: true, dies: dies, times: 1}
			t.Run(fmt.Sprint(f, dies), func(t *testing.T) {
				inWorld(t, setup{replicas: 2, api: defendersim.Config{Latency: time.Second}}, func(w *world) {
					w.faults.inject(f)
					w.ask("r1", 1)
					w.settled(10 * time.Minute)
					got := w.stages()
					for name, s := range got {
						if s.runs > 1 {
							t.Errorf("%s is told %d times", name, s.runs)
						}
					}
					// Who doesn't hear of the write that ended a stage doesn't tell it: it may have been another's.
					if early, device := at != atRecord, at != atDecision; early && got["queue"].runs != 1 || device && got["device"].runs != 1 {
						t.Errorf("not told: %v", got)
					}
				})
			})
		}
	}
}
