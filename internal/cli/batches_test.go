package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/why"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// tells gives a digest a result.
func tells(d *service.PageDigest, t *testing.T, r message.Result) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	d.Add(broker.Message{Data: text, Time: time.Now()})
}

// TestFailuresStayInSight under any number of successes, the latest first, for a day.
func TestFailuresStayInSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := service.NewPageDigest()
		for n, outcome := range []string{message.Failed, message.TimedOut, message.Cancelled, message.Rejected, message.Abandoned} {
			tells(d, t, message.Result{RequestID: fmt.Sprint("r", n), Outcome: outcome, Final: true, Ticket: "T", RequestedBy: "ann"})
			time.Sleep(time.Minute)
		}
		for n := range 1000 {
			tells(d, t, message.Result{RequestID: fmt.Sprint("good", n), Outcome: message.Succeeded, Final: true})
		}
		sees := func() string {
			var r admin.Recent
			d.Show(&r)
			var all []string
			for _, f := range r.Failures {
				all = append(all, f.RequestID+" "+f.Outcome+" "+f.Ticket+" "+f.RequestedBy)
			}
			return strings.Join(all, ", ")
		}
		if got, want := sees(), "r4 abandoned T ann, r3 rejected T ann, r2 cancelled T ann, r1 timedOut T ann, r0 failed T ann"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		time.Sleep(24*time.Hour - 90*time.Second)
		if got := sees(); got != "r4 abandoned T ann" {
			t.Errorf("a day later: %s", got)
		}
	})
}

// TestHowFarABatchIs: a row counts once, by its latest result, also after a replay; and what others choose is bounded.
func TestHowFarABatchIs(t *testing.T) {
	d := service.NewPageDigest()
	tell := func(id, outcome string, final bool, run int) {
		tells(d, t, message.Result{RequestID: id, Run: run, Batch: "monday", Outcome: outcome, Final: final})
	}
	for n := range 5 {
		tell(fmt.Sprint("row", n), message.Submitted, false, 1)
	}
	for n := range 3 {
		tell(fmt.Sprint("row", n), message.Succeeded, true, 1)
	}
	tell("row5", message.Rejected, true, 1)
	tell("row6", message.Rejected, true, 1)
	tell("row6", message.Submitted, false, 2)
	tell("row7", "made up", true, 1)
	var r admin.Recent
	d.Show(&r)
	want := []admin.Batch{{Name: "monday", Outcomes: map[string]int{"succeeded": 3, "rejected": 1}, Followed: 3}}
	if diff := cmp.Diff(want, r.Batches); diff != "" {
		t.Error(diff)
	}
	for n := range 3 * service.MostBatches {
		tells(d, t, message.Result{RequestID: "r", Batch: fmt.Sprint("batch", n), Outcome: message.Succeeded, Final: true})
	}
	if n := len(d.Batches); n != service.MostBatches {
		t.Errorf("%d batches are kept", n)
	}
	if d.Batches[fmt.Sprint("batch", 3*service.MostBatches-1)] == nil {
		t.Error("the latest batch is not kept")
	}
}

// TestBatchThatWaits is seen before any of its rows has a result.
func TestBatchThatWaits(t *testing.T) {
	s := runSystem(t, nil)
	env := map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}
	if status, _, stderr := command(t, env, "pause", "--reason", "freeze"); status != 0 {
		t.Fatal(stderr)
	}
	for n := range 3 {
		request := fmt.Sprintf(`{"id":"row%d","machineId":"%s","comment":"c","batch":"tuesday"}`, n, MachineOf(n))
		if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, []byte(request)); err != nil {
			t.Fatal(err)
		}
	}
	d := service.NewPageDigest()
	tells(d, t, message.Result{RequestID: "row0", Batch: "tuesday", Outcome: message.Succeeded, Final: true}) // it is about to be acknowledged
	if err := d.CountQueue(t.Context(), s.work.Broker); err != nil {
		t.Fatal(err)
	}
	var r admin.Recent
	d.Show(&r)
	want := []admin.Batch{{Name: "tuesday", Outcomes: map[string]int{"succeeded": 1}, Waiting: 2}}
	if diff := cmp.Diff(want, r.Batches); diff != "" {
		t.Error(diff)
	}
}

// TestPageReadsOn: the page's digest reads each result once, and begins anew with a stream that was made anew.
func TestPageReadsOn(t *testing.T) {
	s := runSystem(t, nil)
	b := s.work.Broker
	d := service.NewPageDigest()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	if d.ReadOn(ctx) {
		t.Error("what nobody reads is called read")
	}
	go func() { ended <- d.Run(ctx, b) }()
	batch := func(name string, rows int) {
		t.Helper()
		for !d.ReadOn(ctx) { // it takes longer on a busy machine
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
		}
		var r admin.Recent
		d.Show(&r)
		want := []admin.Batch{{Name: name, Outcomes: map[string]int{"succeeded": rows}}}
		if diff := cmp.Diff(want, r.Batches); diff != "" {
			t.Error(diff)
		}
	}
	publish := func(batch string, n int) {
		t.Helper()
		text := fmt.Sprintf(`{"requestId":"row%d","batch":%q,"outcome":"succeeded","final":true}`, n, batch)
		if _, err := b.JS().Publish(ctx, b.Names().ResultsSubject, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	publish("monday", 1)
	publish("monday", 2)
	batch("monday", 2)
	publish("monday", 3)
	batch("monday", 3)
	if err := b.JS().DeleteStream(ctx, b.Names().ResultsStream); err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	publish("tuesday", 1)
	batch("tuesday", 1)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhyAnActionFailed(t *testing.T) {
	failed := func(action string) message.Result {
		return message.Result{Outcome: message.Failed, Final: true, MachineAction: json.RawMessage(action)}
	}
	for want, r := range map[string]message.Result{
		"actionFailed: the machine's action A ended Failed; errorHResult 0x80070005; sensor is off; no access":     failed(`{"id":"A","status":"Failed","errorHResult":-2147024891,"troubleshootInfo":"sensor is off","commands":[{"errors":["no access"]}]}`),
		"actionTimeOut: the machine's action A ended TimeOut; Defender says no more; see the action in its portal": {Outcome: message.TimedOut, Final: true, MachineAction: json.RawMessage(`{"id":"A","status":"TimeOut","troubleshootInfo":null}`)},
		"trackTimeout: still Pending": {Outcome: message.TimedOut, Final: true, MachineAction: json.RawMessage(`{}`), Error: &message.Failure{Code: "trackTimeout", Message: "still Pending"}},
		"":                            {Outcome: message.Succeeded, Final: true, MachineAction: json.RawMessage(`{"id":"A","status":"Succeeded"}`)},
	} {
		if got := strings.Trim(why.Because(service.WhyEnded(r)), " ()"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
