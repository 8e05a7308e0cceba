package crash_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// request is what was asked for and what must come of it.
type request struct {
	id      string // of its result
	machine string
	comment string // unlike any other's
	payload []byte
	lane    message.Lane // "": normal
	want    string       // final outcome
}

func machineOf(name string) string {
	h := fnv.New128a()
	h.Write([]byte(name))
	return fmt.Sprintf("%x00000000", h.Sum(nil))
}

// sane asks for what succeeds.
func sane(w *world, id string) { w.ask(id, defendersim.Machine{}, message.Succeeded, nil) }

// failing asks for what the machine fails at.
func failing(w *world, id string) {
	w.ask(id, defendersim.Machine{Outcome: "Failed"}, message.Failed, nil)
}

// unclear asks for what is carried out and answered with a 500, or not carried out, and answered so too.
func unclear(w *world, id string) {
	for _, done := range []bool{true, false} {
		id := fmt.Sprint(id, "-", done)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machineOf(id), Times: 1, Status: 500, CarriedOut: done})
		sane(w, id)
	}
}

// unknown asks for a machine that there is not.
func unknown(w *world, id string) {
	w.publish(&request{id: id, machine: machineOf(id), want: message.Rejected}, nil)
}

// expired asks for what is too late.
func expired(w *world, id string) {
	w.ask(id, defendersim.Machine{}, message.Rejected, map[string]any{"expiresAt": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)})
}

// malformed asks for nothing that could be understood.
func malformed(w *world, id string) {
	w.publish(&request{payload: []byte(`{"comment":"` + id + `","machineId":7}`), want: message.Rejected}, map[string]any{"id": id})
}

// twice asks twice for the same.
func twice(w *world, id string) {
	sane(w, id)
	w.send(message.LaneNormal, w.asked[id].payload, id+" again")
}

// pair asks for two things of one machine.
func pair(w *world, id string) {
	sane(w, id)
	w.publish(&request{id: id + "-other", machine: machineOf(id), want: message.Succeeded}, nil)
}

// mixed asks for one of everything in turn.
func mixed(w *world, n int, id string) {
	switch n % 15 {
	case 3:
		failing(w, id)
	case 5:
		unclear(w, id)
	case 7:
		unknown(w, id)
	case 9:
		expired(w, id)
	case 11:
		malformed(w, id)
	case 13:
		twice(w, id)
	case 14:
		pair(w, id)
	default:
		sane(w, id)
	}
}

func (w *world) ask(id string, m defendersim.Machine, want string, more map[string]any) {
	w.t.Helper()
	w.api.AddMachine(machineOf(id), m)
	w.publish(&request{id: id, machine: machineOf(id), want: want}, more)
}

// publish returns when the broker has the request.
func (w *world) publish(r *request, more map[string]any) {
	w.t.Helper()
	if r.payload == nil {
		r.comment = "crash " + r.id
		fields := map[string]any{"id": r.id, "machineId": r.machine, "comment": r.comment}
		maps.Copy(fields, more)
		var err error
		if r.payload, err = json.Marshal(fields); err != nil {
			w.t.Fatal(err)
		}
		w.send(r.lane, r.payload, r.id)
	} else {
		r.id = fmt.Sprint("REMEDIATION:", w.send(r.lane, r.payload, more["id"].(string)))
	}
	w.asked[r.id] = r
}

// send is a publisher that repeats what was not acknowledged.
func (w *world) send(l message.Lane, payload []byte, messageID string) (seq uint64) {
	w.t.Helper()
	until(w.t, 3*time.Minute, func() string {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		stored, err := w.own.Publish(ctx, cmp.Or(l, message.LaneNormal), message.Header{"Nats-Msg-Id": {messageID}}, payload)
		if err != nil {
			return err.Error()
		}
		seq = stored.Sequence
		return ""
	})
	return seq
}
