package broker

import (
	"context"
	"iter"

	"example.com/unrestrict-worker/internal/message"
)

// DeadLetters are the dead letters that there are now, the oldest first. What others have put into the stream is left
// out. An error ends it; that of a stream that is not there is IsMissing.
func (b *Broker) DeadLetters(ctx context.Context) iter.Seq2[Message, error] {
	return b.messages(ctx, b.cfg.Names.DeadletterStream, b.cfg.Names.DeadletterSubject, message.HeaderDeadReason)
}

// Queue are the requests that nobody has acknowledged yet, in hand or not, lane by lane, the most urgent first, and in each
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

// messages are those of a subject that there are now; with a header those that have it.
func (b *Broker) messages(ctx context.Context, name, subject, header string) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for m, err := range b.scan(ctx, name, part{subject: subject, most: manyMessages}) {
			if (err != nil || header == "" || m.Header.Get(header) != "") && !yield(m, err) {
				return
			}
		}
	}
}
