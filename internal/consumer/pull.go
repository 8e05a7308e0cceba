package consumer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/message"
)

// pullExpiry is how long one pull request waits at the broker for a message. A stop waits for it: a pull request can't be
// cancelled, and a message delivered after the stop would be redelivered only after AckWait.
const pullExpiry = time.Second

// After idlePulls empty pull requests in a row the next ones wait longer, so that an idle worker costs nothing. A stop withdraws
// such a request by unsubscribing, instead of waiting for it. A message that the broker was delivering at that moment may be
// redelivered only after AckWait.
const (
	idlePulls      = 30
	idlePullExpiry = 5 * time.Second
)

// puller pulls messages, with one pull request at a time. It replaces the client library's Fetch (nats.go v1.55.0), which
// mistakes a message without a payload for a JetStream status if it has the header Status, and reads a header Nats-Pin-Id as
// the broker's. So anybody who may publish a request could end every fetch.
type puller struct {
	nc      *nats.Conn
	subject string // to which pull requests are sent
	sub     *nats.Subscription
	ch      chan *nats.Msg
	lost    *time.Timer
	empty   int // empty pull requests in a row

	longest time.Duration // the longest expiry that the consumer allows
}

// errConsumerGone is returned when the consumer was deleted or its limits changed.
var errConsumerGone = errors.New("the consumer takes no pull request")

func newPuller(nc *nats.Conn, domain string, cons jetstream.Consumer) (*puller, error) {
	info, api := cons.CachedInfo(), jetstream.DefaultAPIPrefix
	if domain != "" {
		api = "$JS." + domain + ".API."
	}
	p := &puller{
		nc: nc, subject: api + "CONSUMER.MSG.NEXT." + info.Stream + "." + info.Name,
		ch: make(chan *nats.Msg, 16), lost: time.NewTimer(0), longest: idlePullExpiry,
	}
	if d := info.Config.MaxRequestExpires; d > 0 {
		p.longest = min(p.longest, d)
	}
	var err error
	if p.sub, err = nc.ChanSubscribe(nc.NewInbox(), p.ch); err != nil {
		return nil, fmt.Errorf("subscribe to deliveries: %w", err)
	}
	return p, nil
}

// ask sends a pull request. A pull for a probe has a shorter expiry: the lanes are asked in turn, all of them together for
// as long as one lane otherwise.
func (p *puller) ask(probe bool, lanes int) error {
	expiry := min(pullExpiry, p.longest)
	if p.empty++; p.empty > idlePulls {
		now := time.Now() // expires in step with the other polls of an idle worker
		expiry = now.Truncate(p.longest).Add(p.longest).Sub(now.Round(0))
	}
	if probe {
		expiry, p.empty = min(pullExpiry/time.Duration(lanes), p.longest), 0
	}
	if err := p.nc.PublishRequest(p.subject, p.sub.Subject, fmt.Appendf(nil, `{"batch":1,"expires":%d}`, expiry)); err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	p.lost.Reset(expiry + time.Second) // after its expiry the request counts as lost, perhaps because the broker went away
	return nil
}

// next returns a message, or nil when the current pull request brings none.
func (p *puller) next(stop <-chan struct{}) (*nats.Msg, error) {
	if p.empty <= idlePulls {
		stop = nil
	}
	select {
	case <-stop:
		_ = p.sub.Drain()                  // from now on the broker delivers to other replicas
		_ = p.nc.FlushTimeout(time.Second) // what it sent before has arrived now
		return nil, nil
	case m := <-p.ch:
		if isDelivery(m) {
			p.empty = 0
			return m, nil
		}
		return nil, consumerGone(m)
	case <-p.lost.C:
		return nil, nil
	}
}

// isDelivery distinguishes a message of the stream from a JetStream status. It goes by the reply subject, which the broker
// sets, not by headers, which the publisher sets.
func isDelivery(m *nats.Msg) bool { return strings.HasPrefix(m.Reply, "$JS.ACK.") }

// consumerGone returns nil for an answer that only ends the request. [doc] JetStream wire API: 404 and 408 no message came,
// 409 the consumer or its leader changed, or its limits are exceeded, 503 no server answers for it. Exceeded limits may have
// been lowered just now, so the consumer is opened again, a second later.
func consumerGone(answer *nats.Msg) error {
	status, description := answer.Header.Get("Status"), answer.Header.Get("Description")
	if status == "404" || status == "408" || status == "409" && description != "Consumer Deleted" && !strings.HasPrefix(description, "Exceeded ") {
		return nil
	}
	return fmt.Errorf("%w: %s %s", errConsumerGone, status, description)
}

// close unsubscribes, and returns the messages that were delivered but not taken.
func (p *puller) close() (left []*nats.Msg) {
	p.lost.Stop()
	_ = p.sub.Unsubscribe() // fails only if the connection has closed, which ends the subscription too
	for {
		select {
		case m := <-p.ch:
			if isDelivery(m) {
				left = append(left, m)
			}
		default:
			return left
		}
	}
}

func acknowledge(msg *nats.Msg, out message.Outcome) error {
	if out.Done {
		return msg.Ack()
	}
	return msg.NakWithDelay(out.After)
}
