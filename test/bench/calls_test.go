package bench_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// calls counts what is spent of the API's quota, at 100 calls a minute, for each release that the API accepted. The loop
// calls again whatever the answer, and so releases twice what was carried out without one.
func calls(b *testing.B, t *table) {
	const releases = 300
	lines := make([]func(), 3)
	var at sync.WaitGroup
	for i, c := range []struct {
		name  string
		fault defendersim.Fault
		env   string
		loop  float64
	}{
		{"without faults", defendersim.Fault{}, "WORKER_GUARD_AFTER=1h", 1},
		{"with 10 % of 503", defendersim.Fault{Op: "unrestrict", Status: http.StatusServiceUnavailable, Probability: 0.1}, "WORKER_GUARD_AFTER=1h", 1 / 0.9},
		{"of a bulk older than an hour", defendersim.Fault{}, "WORKER_GUARD_AFTER=0s", 1},
	} {
		s := newSite(b, t.bin, defendersim.Config{Limits: []defendersim.Limit{}, AllowUnknownMachines: true, Latency: 200 * time.Millisecond, Lifecycle: defendersim.Lifecycle{Pending: time.Hour}},
			"WORKER_RATE_PER_MINUTE=100", c.env)
		if c.fault.Op != "" {
			s.sim.Inject(c.fault)
		}
		at.Go(func() {
			start := time.Now()
			s.publish(0, releases)
			_, kill := s.run()
			defer kill()
			n := 0
			s.results(start, func(message.Result, time.Time) bool { n++; return n == releases })
			took, all, looks := time.Since(start).Round(time.Second), s.sim.Calls(), 0
			for _, call := range all {
				if call.Op != "unrestrict" {
					looks++
				}
			}
			lines[i] = func() {
				t.row("calls a release "+c.name, float64(len(all))/releases, c.loop, fmt.Sprintf("%d looks; %d releases in %v", looks, releases, took))
			}
		})
	}
	at.Wait()
	for _, line := range lines {
		line()
	}
}

// recovery measures how long requests wait after their process was killed with their calls under way, while another
// replica is running: those that the API carried out, and the others, which wait for three looks.
func recovery(b *testing.B, t *table) {
	s := newSite(b, t.bin, defendersim.Config{Limits: []defendersim.Limit{}, AllowUnknownMachines: true, Latency: 200 * time.Millisecond, Lifecycle: defendersim.Lifecycle{Pending: time.Hour}},
		"WORKER_RATE_PER_MINUTE=0")
	_, kill := s.run()
	_, last := s.run()
	defer func() { last() }()
	const rounds, requests = 8, 32
	var took, without []float64
	for round := range rounds {
		time.Sleep(3 * time.Second) // both are there
		start, before := time.Now(), len(s.sim.Actions())
		s.publish(round*requests, requests)
		for len(s.sim.Actions()) < before+requests/4 {
			time.Sleep(time.Millisecond)
		}
		kill()
		killed, effect := time.Now(), map[string]bool{}
		time.Sleep(250 * time.Millisecond) // what the API had begun it carries out
		for _, a := range s.sim.Actions()[before:] {
			effect[a.MachineID] = a.Created.Before(killed)
		}
		n := 0
		s.results(start, func(r message.Result, at time.Time) bool {
			if wait := at.Sub(killed).Seconds(); wait > 1 { // else the other one had it
				if effect[strings.ToLower(r.MachineID)] {
					took = append(took, wait)
				} else {
					without = append(without, wait)
				}
			}
			n++
			return n == requests
		})
		_, kill = s.run()
		kill, last = last, kill
	}
	if twice := len(s.sim.Actions()) - rounds*requests; twice > 0 {
		b.Errorf("%d were released twice", twice)
	}
	note := fmt.Sprintf("of %d calls that took effect, ack wait 5 s (12)", len(took))
	t.row("recovery after kill -9: p99, s", quantile(took, 0.99), none, note)
	t.row("recovery after kill -9: p50, s", quantile(took, 0.5), none, "")
	t.row("recovery after kill -9 without effect: p99, s", quantile(without, 0.99), none, fmt.Sprintf("of %d, which wait for three looks", len(without)))
}

func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return none
	}
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}
