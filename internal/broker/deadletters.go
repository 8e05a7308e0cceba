package broker

import (
	"context"
	"iter"

	"example.com/unrestrict-worker/internal/message"
)

// DeadLetters yields the present dead letters, the oldest first. It skips what other programs have put into the stream. An
// error ends the sequence; if the stream does not exist, the error is IsMissing.
func (b *Broker) DeadLetters(ctx context.Context) iter.Seq2[Message, error] {
	return b.messages(ctx, b.cfg.Names.DeadletterStream, b.cfg.Names.DeadletterSubject, message.HeaderDeadReason)
}

// Queue yields the requests that are not acknowledged yet, in hand or not: lane by lane, the most urgent first, and in each lane
// the oldest first.
func (b *Broker) Queue(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for _, l := range message.Lanes() {
			for m, err := range b.messages(ctx, b.cfg.Names.Stream, b.cfg.Names.LaneSubject(l), "") {
				if !yield(m, err) {
					return
				}
			}
		}
	}
}

// messages yields the present messages of a subject; with a header, only those that have it.
func (b *Broker) messages(ctx context.Context, name, subject, header string) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for m, err := range b.scan(ctx, name, part{subject: subject, most: manyMessages}) {
			if (err != nil || header == "" || m.Header.Get(header) != "") && !yield(m, err) {
				return
			}
		}
	}
}
