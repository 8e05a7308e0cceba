package ledger_test

import (
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// TestUnfollowed: what is told at a glance is what the whole entry says, of entries that are written as they are.
func TestUnfollowed(t *testing.T) {
	for _, state := range []ledger.State{ledger.StateWaiting, ledger.StateCalled, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal} {
		for _, published := range []bool{false, true} {
			e := ledger.Entry{State: state, Published: published, Run: 1, ID: "r1", ReceivedAt: time.Now(), Action: []byte(`{"id":"a"}`)}
			w, err := e.Write("key", 0)
			if err != nil {
				t.Fatal(err)
			}
			want := state == ledger.StateCalled || state == ledger.StateFinal && published
			if got := ledger.Settled(ledger.Record{Value: w.Value}); got != want {
				t.Errorf("%s, published %t: %t; %s", state, published, got, w.Value)
			}
		}
	}
	for _, other := range []string{"", `{"v":2,"state":"called","run":1}`, `{"state":"called","v":1}`, `{"v":1,"state":"calledAgain"}`} {
		if ledger.Settled(ledger.Record{Value: []byte(other)}) {
			t.Errorf("%q is left alone", other)
		}
	}
}
