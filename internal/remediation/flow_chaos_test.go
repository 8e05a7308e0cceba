package remediation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/test/raced"
)

// TestAnyMisfortuneIsSurvived throws every fault of the API and of the broker, and deaths, at requests that come in
// between, and then lets the dust settle. The oracle looks all the time.
func TestAnyMisfortuneIsSurvived(t *testing.T) {
	seeds := uint64(8)
	if raced.On {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 7))
			api := defendersim.Config{
				Latency: time.Duration(dice.IntN(800)) * time.Millisecond, ListLag: time.Duration(dice.IntN(4)) * time.Second,
				Duplicate: defendersim.DuplicateAlternate, OneAtATime: dice.IntN(2) == 0, Seed: seed + 1,
			}
			inWorld(t, setup{api: api, replicas: 3}, func(w *world) {
				asked := map[string]bool{}
				for step := range 50 {
					if n := dice.IntN(30); n < 20 {
						id := fmt.Sprint("r", n)
						asked[id] = true
						w.ask(id, n%13) // some machines have two requests
					}
					misfortune(w, dice)
					if step%10 == 9 {
						w.passes(time.Minute)
					}
					w.passes(time.Duration(dice.IntN(4000)) * time.Millisecond)
					for w.living() < 3 {
						w.start()
					}
				}
				w.faults.clear()
				w.api.ClearFaults()
				w.settled(3 * time.Hour)
				for id := range asked {
					w.wantFinal(id, "succeeded")
				}
			})
		})
	}
}

// misfortune makes something go wrong soon.
func misfortune(w *world, dice *rand.Rand) {
	points := []point{atIntent, atMachine, atPost, atUnknown, atWaiting, atRecord, atDecision, atAudit, atSubmitted, atFinal, atMark, atAck}
	w.faults.inject(fault{at: points[dice.IntN(len(points))], done: dice.IntN(2) == 0, dies: dice.IntN(3) == 0, times: 1})
	calls := []defendersim.Fault{
		{Status: 503},
		{Status: 500},
		{Cut: "before"},
		{Cut: "headers"},
		{Cut: "body"},
		{Hang: true},
		{Latency: 40 * time.Second},
		{Body: []byte("<html>")},
		{Status: 401},
		{Status: 429, RetryAfter: 5 * time.Second},
		{Status: 429},
		{Status: 403, Message: "Missing application roles."},
		{Status: 502, Body: []byte("<html>")},
		{Status: 404, Body: []byte("<html>")},
	}
	f := calls[dice.IntN(len(calls))]
	f.Op, f.Times = "unrestrict", 1
	f.CarriedOut = dice.IntN(2) == 0 && f.Status != 401 && f.Status != 429 && f.Status != 403 && f.Status != 404
	w.api.Inject(f)
	if dice.IntN(3) == 0 {
		g := calls[dice.IntN(len(calls))]
		g.Op, g.Times = []string{"list", "get"}[dice.IntN(2)], 1
		w.api.Inject(g)
	}
	if dice.IntN(10) == 0 {
		w.tokens.grant()
	}
}
