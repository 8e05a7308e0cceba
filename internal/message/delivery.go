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
	Lane      Lane // Subject's; "": unknown
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

type inHand struct{}

// InHand is a context in which a delivery is worked on: who waits for a call in it waits in the order of the stream.
func InHand(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, inHand{}, d.Sequence)
}

// SequenceInHand is the sequence of the delivery that is worked on; 0: none is.
func SequenceInHand(ctx context.Context) uint64 {
	sequence, _ := ctx.Value(inHand{}).(uint64)
	return sequence
}

// Outcome is what becomes of a delivery: an ack, or a nak with a delay.
type Outcome struct {
	Done  bool          // ack: everything that had to become durable is durable
	After time.Duration // nak: the delay before redelivery (0: none)
	Cause string        // nak: a word for logs and unrestrict_retries_total{reason}
}

// Done acknowledges the message.
func Done() Outcome { return Outcome{Done: true} }

// Later naks the message, to be redelivered after d.
func Later(d time.Duration, cause string) Outcome {
	return Outcome{After: max(d, 0), Cause: cause}
}

// Handler carries one delivery as far as it can go now. The context wait ends when the process is asked to stop: then the
// handler gives up its waits and begins nothing new. The context work ends when it may not finish what is under way either.
type Handler func(wait, work context.Context, d Delivery) Outcome

// About returns the fields of a log line about a message that was not parsed: its name, its trace, and the line's own.
func (d Delivery) About(own ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.String("message", d.Ref())}
	if parent, _ := TraceFrom(d.Header, Content{}); parent != "" {
		fields = append(fields, zap.String("trace_id", TraceID(parent)))
	}
	return append(fields, own...)
}
