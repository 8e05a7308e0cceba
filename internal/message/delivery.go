// Package message defines requests, results and dead letters, on the wire and in the program: it parses and renders, checks
// form and signature, and decides nothing. Its only dependency on NATS are the names of headers.
package message

import (
	"context"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// Delivery is one message of the request stream as the consumer passes it on. It has no method to acknowledge: only the
// consumer acknowledges.
type Delivery struct {
	Stream    string
	Sequence  uint64 // in the stream
	Subject   string
	Lane      Lane // the subject's lane; "": unknown
	Header    Header
	Data      []byte
	Published time.Time // when the broker stored it, by the broker's clock
	Attempt   int       // deliveries so far, this one included; not crash-durable, so never a basis for a decision about calls
	Probe     bool      // admitted by a tripped Breaker, to try whether the fault is gone
}

// Ref is STREAM:SEQ, the name of a message that has no id of its own.
func (d Delivery) Ref() string {
	return d.Stream + ":" + strconv.FormatUint(d.Sequence, 10)
}

type inHand struct{}

// WithDelivery returns a context for handling a delivery: callers that wait for a call with it wait in the order of the stream.
func WithDelivery(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, inHand{}, d.Sequence)
}

// DeliverySequence is the sequence of the delivery that ctx handles; 0: none.
func DeliverySequence(ctx context.Context) uint64 {
	sequence, _ := ctx.Value(inHand{}).(uint64)
	return sequence
}

// Outcome is what becomes of a delivery: an ack, or a nak with a delay.
type Outcome struct {
	Done  bool          // ack: everything that must be durable is durable
	After time.Duration // nak: the delay before redelivery (0: none)
	Cause string        // nak: a word for logs and unrestrict_retries_total{reason}
}

// Done acknowledges the message.
func Done() Outcome { return Outcome{Done: true} }

// Later naks the message, to be redelivered after d.
func Later(d time.Duration, cause string) Outcome {
	return Outcome{After: max(d, 0), Cause: cause}
}

// Handler processes one delivery as far as it can now. The context wait ends when the process is asked to stop: then the
// handler ends its waits and begins nothing new. The context work ends when the handler must not finish its current work
// either.
type Handler func(wait, work context.Context, d Delivery) Outcome

// About returns the fields of a log line about a message that was not parsed: its name, its trace, and the line's own.
func (d Delivery) About(own ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.String("message", d.Ref())}
	if parent, _ := TraceFrom(d.Header, Content{}); parent != "" {
		fields = append(fields, zap.String("trace_id", TraceID(parent)))
	}
	return append(fields, own...)
}
