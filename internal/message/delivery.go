// Package message says what a request, a result and a dead letter are, on the wire and in the program: it parses and
// renders, checks form and signature, and decides nothing. It knows no NATS but the names of headers.
package message

import (
	"context"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// Delivery is one message of the request stream as the consumer hands it over.
// There is no acknowledgement in it: only the consumer acknowledges.
type Delivery struct {
	Stream    string
	Sequence  uint64 // in the stream
	Subject   string
	Header    Header
	Data      []byte
	Published time.Time // when the broker stored it, in the broker's time
	Attempt   int       // deliveries so far, this one included; not crash-durable, so never a basis for a decision about calls
	Probe     bool      // let through a tripped Breaker, to try whether the fault is gone
}

// Ref is STREAM:SEQ, the name of a message that has no id of its own.
func (d Delivery) Ref() string {
	return d.Stream + ":" + strconv.FormatUint(d.Sequence, 10)
}

// Outcome is all that a handler says about a message: it is done with, or it is to come again.
type Outcome struct {
	Done  bool          // acknowledge: everything that had to become durable is
	After time.Duration // not Done: deliver again after so long (0: at once)
	Cause string        // not Done: a word for logs and unrestrict_retries_total{reason}
}

// Done acknowledges the message.
func Done() Outcome { return Outcome{Done: true} }

// Later gives the message back, to be delivered again after d.
func Later(d time.Duration, cause string) Outcome {
	return Outcome{After: max(d, 0), Cause: cause}
}

// Handler carries one delivery as far as it can go now. `wait` ends when the process is asked to stop: waits are
// given up and nothing new is begun. `work` ends when what is under way may no longer be finished.
type Handler func(wait, work context.Context, d Delivery) Outcome

// About are the fields of a line about a message of which no more is known: its name, its trace, and the line's own.
func (d Delivery) About(own ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.String("message", d.Ref())}
	if parent, _ := TraceFrom(d.Header, Content{}); parent != "" {
		fields = append(fields, zap.String("trace_id", TraceID(parent)))
	}
	return append(fields, own...)
}

// TraceID is the trace id in a traceparent that is valid (validTraceParent) or "".
func TraceID(parent string) string {
	if parent == "" {
		return ""
	}
	return parent[3:35]
}
