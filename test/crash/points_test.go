package crash_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// A replica dies at each point of a request's way up to the acknowledgement.
func TestDeathOnTheWayToTheCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{env: []string{"WORKER_RATE_PER_MINUTE=2000", "WORKER_RATE_PER_HOUR=20000"}, api: defendersim.Config{Latency: 20 * time.Millisecond}})
	w.perish([]point{
		{"a minute's grant", "unrestrict.rate.minute", nil, sane},
		{"an hour's grant", "unrestrict.rate.hour", nil, sane},
		{"the intent", entries, []string{`"state":"called"`}, sane},
		{"taking the machine", "$KV.UNRESTRICT_LEDGER.m.", nil, pair},
		{"the call", "POST /api/machines/", nil, sane},
		{"the second call", "POST /api/machines/", nil, pair},
		{"the acceptance", entries, []string{`"state":"submitted"`}, sane},
		{"its audit record", "remediation.audit", []string{`"kind":"accepted"`}, sane},
		{"its result", results, []string{`"outcome":"submitted"`}, sane},
		{"the acknowledgement", acknowledgements, []string{"+ACK"}, twice},
		{"an unclear answer", entries, []string{`"state":"unknown"`}, unclear},
		{"a look-up", "GET /api/machineactions", nil, unclear},
		{"a wait", entries, []string{`"state":"waiting"`}, unknown},
		{"a rejection", entries, []string{`"state":"final","run"`, `"outcome":"rejected"`}, expired},
		{"its dead letter", "remediation.deadletter", nil, expired},
		{"a rejection's result", results, []string{`"outcome":"rejected"`}, unknown},
		{"a rejection's mark", entries, []string{`"state":"final","published":true`, `"outcome":"rejected"`}, unknown},
		{"a rejection's audit record", "remediation.audit", []string{`"outcome":"rejected"`}, expired},
		{"a malformed request's audit record", "remediation.audit", []string{`"kind":"refused"`}, malformed},
		{"a malformed request's dead letter", "remediation.deadletter", nil, malformed},
		{"a malformed request's result", results, []string{`"code":"malformed"`}, malformed},
	})
	w.finish()
}

// The replica that follows actions dies at each point of their end; another one takes over.
func TestDeathOfTheFollower(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.perish([]point{
		{"the lease", "$KV.UNRESTRICT_STATE.lease.", nil, sane},
		{"the decision", entries, []string{`"state":"final","run"`, `"outcome":"succeeded"`}, sane},
		{"the audit record", "remediation.audit", []string{`"kind":"decided"`, `"outcome":"succeeded"`}, sane},
		{"the final result", results, []string{`"outcome":"succeeded"`}, sane},
		{"the mark", entries, []string{`"state":"final","published":true`, `"outcome":"failed"`}, failing},
	})
	w.finish()
}

// Replicas die at any instant, while the API misbehaves in all forms.
func TestDeathAtAnyTime(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, options{api: defendersim.Config{Latency: 30 * time.Millisecond, Seed: seed, Duplicate: defendersim.DuplicateAlternate}})
	for _, f := range []defendersim.Fault{
		{Op: "unrestrict", Status: 500},
		{Op: "unrestrict", Status: 503, CarriedOut: true},
		{Op: "unrestrict", Cut: "before"},
		{Op: "unrestrict", Cut: "headers", CarriedOut: true},
		{Op: "unrestrict", Hang: true, CarriedOut: true},
		{Op: "unrestrict", Status: 429, RetryAfter: time.Second},
		{Op: "list", Status: 500},
		{Op: "list", Cut: "body"},
	} {
		f.Probability = 0.01
		w.api.Inject(f)
	}
	w.readiness("")
	for round := range kills {
		for n := round * requests / kills; n < (round+1)*requests/kills; n++ {
			mixed(w, n, fmt.Sprint("any-", n))
		}
		time.Sleep(time.Duration(dice.Int64N(int64(700 * time.Millisecond)))) // the instant
		r := w.replicas[dice.IntN(len(w.replicas))]
		r.kill()
		r.start()
	}
	w.finish()
}
