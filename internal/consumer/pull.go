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
// cancelled, and a message delivered to nobody would be redelivered only after AckWait.
const pullExpiry = time.Second

// Once so many pull requests in a row brought nothing, the next ones wait for longer: an idle worker is to cost nothing. A
// stop withdraws such a request instead of waiting for it. A message that the broker was delivering at that very moment may
// be redelivered only after AckWait.
const (
	idlePulls      = 30
	idlePullExpiry = 5 * time.Second
)

// puller pulls messages, with one pull request at a time. The client library's Fetch (nats.go v1.55.0) mistakes a message
// without a payload for a status of JetStream if it has the header Status, and takes a header Nats-Pin-Id for its own: so
// anybody who may publish a request could end every fetch.
type puller struct {
	nc      *nats.Conn
	subject string // of the pull requests
	sub     *nats.Subscription
	ch      chan *nats.Msg
	lost    *time.Timer
	empty   int // pull requests in a row that brought nothing

	longest time.Duration // for which the consumer lets one wait
}

// errConsumerGone is a consumer that was deleted under us, or has other limits now.
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

// ask asks for a message. For one to probe with each of the lanes is asked in turn, all of them together as long as one is else.
func (p *puller) ask(probe bool, lanes int) error {
	expiry := min(pullExpiry, p.longest)
	if p.empty++; p.empty > idlePulls {
		now := time.Now() // it ends when the other parts of a worker at rest ask, too
		expiry = now.Truncate(p.longest).Add(p.longest).Sub(now.Round(0))
	}
	if probe {
		expiry, p.empty = min(pullExpiry/time.Duration(lanes), p.longest), 0
	}
	if err := p.nc.PublishRequest(p.subject, p.sub.Subject, fmt.Appendf(nil, `{"batch":1,"expires":%d}`, expiry)); err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	p.lost.Reset(expiry + time.Second) // past its expiry a request was lost, with a broker that went away perhaps
	return nil
}

// next returns a message, or nil when the request under way brings no more.
func (p *puller) next(stop <-chan struct{}) (*nats.Msg, error) {
	if p.empty <= idlePulls {
		stop = nil
	}
	select {
	case <-stop:
		_ = p.sub.Drain()                  // the broker gives others what comes from now on
		_ = p.nc.FlushTimeout(time.Second) // what it sent before is here now
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

// isDelivery distinguishes a message of the stream from a status of JetStream by its reply subject, which the broker sets,
// and not by its headers, which the publisher sets.
func isDelivery(m *nats.Msg) bool { return strings.HasPrefix(m.Reply, "$JS.ACK.") }

// consumerGone is nil for an answer that only ends the request. [doc] JetStream wire API: 404 and 408 nothing came, 409
// the consumer or its leader changed, or its limits are exceeded, 503 nobody answers for it. Somebody may have lowered the
// limits just now: the consumer is opened again, a second later.
func consumerGone(answer *nats.Msg) error {
	status, description := answer.Header.Get("Status"), answer.Header.Get("Description")
	if status == "404" || status == "408" || status == "409" && description != "Consumer Deleted" && !strings.HasPrefix(description, "Exceeded ") {
		return nil
	}
	return fmt.Errorf("%w: %s %s", errConsumerGone, status, description)
}

// close unsubscribes, and returns the messages that nobody took.
func (p *puller) close() (left []*nats.Msg) {
	p.lost.Stop()
	_ = p.sub.Unsubscribe() // the connection is gone otherwise, and with it the subscription
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
