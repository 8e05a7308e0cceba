package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// TestTallyCountsOutcomesAlone: what anybody else puts into the stream of results makes no outcomes of its own, which /status
// and the page would show. Each is told of every message once, however often it is asked.
func TestTallyCountsOutcomesAlone(t *testing.T) {
	p := newTeller(t, 0)
	p.tell(t, "r-1", time.Now())
	for n := range 3 {
		_, err := p.broker.JS().PublishMsg(within(t), &nats.Msg{Subject: "remediation.results", Data: []byte("{}"), Header: nats.Header{
			"Nats-Msg-Id": {fmt.Sprint("x", n, ":final:1")}, "ce-type": {fmt.Sprint("remediation.unrestrict.madeUp\u202e", n)},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	tally, told := p.broker.NewTally(), 0
	tally.Each = func(broker.Message) { told++ }
	for range 2 {
		got, _, err := tally.Counts(within(t))
		if diff := cmp.Diff(map[string]int{message.Succeeded: 1}, got); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
	}
	if told != 4 {
		t.Errorf("told of %d messages", told)
	}
}
