package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// LoadBelow implements remediation.Ledger. The stream's leader is asked for one message after the other: there are seldom
// more than one or two, and a direct read may come from a replica that is behind.
func (b *bucketStore) LoadBelow(ctx context.Context, key string) (map[string]remediation.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	below := map[string]remediation.Record{}
	for seq := uint64(1); ; {
		subject, rec, err := b.next(ctx, b.prefix+key+".*", seq)
		if err != nil {
			return nil, fmt.Errorf("read what is below %s: %w", key, err)
		}
		if rec.Revision == 0 {
			return below, nil
		}
		below[strings.TrimPrefix(subject, b.prefix)] = rec
		seq = rec.Revision + 1
	}
}

// next is the first message from seq on whose subject the filter matches; Revision 0: there is none.
func (b *bucketStore) next(ctx context.Context, filter string, seq uint64) (subject string, rec remediation.Record, err error) {
	stream, _, _ := strings.Cut(strings.TrimPrefix(b.prefix, "$KV."), ".")
	ask, err := json.Marshal(map[string]any{"seq": seq, "next_by_subj": filter})
	if err != nil {
		return "", rec, err
	}
	reply, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+stream, ask)
	if err != nil {
		return "", rec, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return "", rec, err
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return "", rec, nil
	case answer.Error != nil:
		return "", rec, answer.Error
	}
	m := answer.Message
	var h nats.Header
	if len(m.Header) > 0 {
		if h, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return "", rec, err
		}
	}
	return m.Subject, record(h, m.Data, m.Sequence, m.Time), nil
}
