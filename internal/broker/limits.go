package broker

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// room is how many bytes of max_payload are left free for the headers that the client library adds.
	room = 512
	// streamRoom is the same for a stream's own limits, which may be small. For max_bytes it covers the store's overhead too.
	streamRoom = 128
	// leastMessage is smaller than any result, dead letter or audit record.
	leastMessage = 512
)

// largest is how many bytes a message of a stream may have: a larger one is never stored, even when the stream is empty. A
// stream with max_bytes that discards old messages would accept a larger one, and drop it at once.
func (b *Broker) largest(cfg jetstream.StreamConfig) int {
	most := b.MaxPayload() - room
	if cfg.MaxMsgSize > 0 {
		most = min(most, int(cfg.MaxMsgSize)-streamRoom)
	}
	if cfg.MaxBytes > 0 {
		most = min(most, int(min(cfg.MaxBytes, 1<<30))-streamRoom)
	}
	return max(most, 1)
}

// limit is how many bytes a message of the worker may have in a stream, as of the last inspection, because others may alter the
// stream. A command makes no inspection: for it only the broker's own limit counts.
func (b *Broker) limit(stream string) int {
	if most := b.found.Load().largest[stream]; most > 0 {
		return most
	}
	return max(b.MaxPayload()-room, 1)
}

// full is why a stream accepts nothing until messages leave it; "" if it is not full. The limit for each subject is checked only
// if the stream has one subject.
func full(info *jetstream.StreamInfo) string {
	cfg, state := info.Config, info.State
	switch {
	case cfg.Discard != jetstream.DiscardNew:
		return ""
	case cfg.MaxMsgs > 0 && state.Msgs >= uint64(cfg.MaxMsgs):
		return fmt.Sprintf("max_msgs %d", cfg.MaxMsgs)
	case cfg.MaxBytes > 0 && state.Bytes+leastMessage > uint64(cfg.MaxBytes):
		return fmt.Sprintf("max_bytes %d", cfg.MaxBytes)
	case cfg.DiscardNewPerSubject && cfg.MaxMsgsPerSubject > 0 && state.NumSubjects == 1 && state.Msgs >= uint64(cfg.MaxMsgsPerSubject):
		return fmt.Sprintf("max_msgs_per_subject %d", cfg.MaxMsgsPerSubject)
	}
	return ""
}
