package broker

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// room is what a message may have less than max_payload, for what the client library adds to the headers.
	room = 512
	// streamRoom is the same of a stream's own limits, which may be small. Of max_bytes it is what the store adds, too.
	streamRoom = 128
	// leastMessage is less than any result, dead letter or audit record has.
	leastMessage = 512
)

// largest is how many bytes a message of a stream may have: more is never stored, whatever goes out of the stream. By
// max_bytes a stream that discards old messages would take a larger one, and drop it at once.
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

// limit is how large a message of ours may be for a stream: as of the last look, for others may alter it. A command has not
// looked.
func (b *Broker) limit(stream string) int {
	if most := b.found.Load().largest[stream]; most > 0 {
		return most
	}
	return max(b.MaxPayload()-room, 1)
}

// full is why a stream takes nothing more until something goes out of it; "" if it does. The limit for each subject is told
// only where the stream has one subject.
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
