package broker

import (
	"context"
	"errors"
	"iter"

	"example.com/unrestrict-worker/internal/message"
)

// DeadLetters are the dead letters that there are now, the oldest first. What others have put into the stream is left
// out. An error ends it; that of a stream that is not there is IsMissing.
func (b *Broker) DeadLetters(ctx context.Context) iter.Seq2[Message, error] {
	n := b.cfg.Names
	return func(yield func(Message, error) bool) {
		err := b.scan(ctx, n.DeadletterStream, part{subject: n.DeadletterSubject}, func(m Message) error {
			if m.Header.Get(message.HeaderDeadReason) != "" && !yield(m, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(Message{}, err)
		}
	}
}

// Queue are the requests that nobody has acknowledged yet, in hand or not, the oldest first.
func (b *Broker) Queue(ctx context.Context) iter.Seq2[Message, error] {
	n := b.cfg.Names
	return func(yield func(Message, error) bool) {
		err := b.scan(ctx, n.Stream, part{subject: n.Subject}, func(m Message) error {
			if !yield(m, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(Message{}, err)
		}
	}
}
