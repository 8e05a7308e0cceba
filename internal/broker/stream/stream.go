// Package stream does what the JetStream client library does not offer, or not safely: it reads single messages from a
// stream's leader, publishes many at once over one subscription, and keeps keys by compare-and-set in a bucket that may
// be deleted and recreated.
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/message"
)

// Timeout bounds one call of the JetStream API.
const Timeout = 5 * time.Second

// Message is one message of a stream.
type Message struct {
	Subject  string
	Sequence uint64
	Time     time.Time // by the broker's clock
	Header   message.Header
	Data     []byte
}

// API is the subject of a call of the JetStream API, in js's domain.
func API(js jetstream.JetStream, call string) string {
	if domain := js.Options().Domain; domain != "" {
		return "$JS." + domain + ".API." + call
	}
	return jetstream.DefaultAPIPrefix + call
}

// Query selects one message, or a batch. [doc] nats-architecture-and-design ADR-31
type Query struct {
	Sequence uint64     `json:"seq,omitempty"`
	Start    *time.Time `json:"start_time,omitempty"`
	Next     string     `json:"next_by_subj,omitempty"` // the first on this subject, from Sequence or Start on
	Last     string     `json:"last_by_subj,omitempty"` // the last on this subject
	Batch    uint64     `json:"batch,omitempty"`
	MaxBytes int        `json:"max_bytes,omitempty"`

	NoHeaders bool `json:"no_hdr,omitempty"` // for a batch: payloads only
}

// Get reads one message from the stream's leader. The reply contains the message as JSON, so no header of the message can be taken
// for one of the broker. A header block that no client can parse counts as none, as in a delivery.
func Get(ctx context.Context, js jetstream.JetStream, stream string, query Query) (m Message, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	ask, err := json.Marshal(query)
	if err != nil {
		return m, false, err
	}
	reply, err := js.Conn().RequestWithContext(ctx, API(js, "STREAM.MSG.GET."+stream), ask)
	if err != nil {
		return m, false, fmt.Errorf("read %s: %w", stream, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return m, false, fmt.Errorf("read %s: %w", stream, err)
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return m, false, nil
	case answer.Error != nil:
		return m, false, fmt.Errorf("read %s: %w", stream, answer.Error)
	case answer.Message == nil:
		return m, false, fmt.Errorf("read %s: the answer has no message", stream)
	}
	stored := answer.Message
	m = Message{Subject: stored.Subject, Sequence: stored.Sequence, Time: stored.Time, Header: message.Header{}, Data: stored.Data}
	if h, err := nats.DecodeHeadersMsg(stored.Header); err == nil {
		m.Header = message.Header(h)
	}
	return m, true, nil
}

// Delete deletes a message; it is no error if the stream does not have it. The client library's own call returns the broker's error
// only as text.
func Delete(ctx context.Context, js jetstream.JetStream, stream string, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, API(js, "STREAM.MSG.DELETE."+stream), fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, sequence))
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return err
	}
	if answer.Error == nil || answer.Error.ErrorCode == codeSequenceNotFound || answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil
	}
	return answer.Error
}

// Publish sends a message and returns a function that waits for the acknowledgement, up to the client's own limit. The client
// library's PublishMsg does both in one call, and costs more: it makes a request of its own, while Publish shares one
// subscription for all messages.
func Publish(js jetstream.JetStream, msg *nats.Msg, opts ...jetstream.PublishOpt) func(context.Context) (*jetstream.PubAck, error) {
	sent, err := js.PublishMsgAsync(msg, opts...)
	return func(ctx context.Context) (*jetstream.PubAck, error) {
		if err != nil {
			return nil, explained(err)
		}
		select {
		case ack := <-sent.Ok():
			return ack, nil
		case err := <-sent.Err():
			return nil, explained(err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// explained adds ErrTooLarge to an error of publishing if the message is larger than the broker or its stream accepts.
func explained(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) || APIError(err).ErrorCode == codeMessageTooLarge {
		return fmt.Errorf("%w: %w", message.ErrTooLarge, err)
	}
	return err
}

// APIError is the JetStream API's error in err, or the zero value if there is none.
func APIError(err error) jetstream.APIError {
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return *js.APIError()
	}
	return jetstream.APIError{}
}

// Codes for which the client library has no name. [doc] nats-server errors.json
const (
	codeSequenceNotFound jetstream.ErrorCode = 10043
	codeMessageTooLarge  jetstream.ErrorCode = 10054
)
