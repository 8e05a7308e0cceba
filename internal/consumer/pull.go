package consumer

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// pullExpiry is how long one pull request waits at the broker for a message. A stop waits for it, for a request can't
// be called back, and a message that it brought to nobody would come again only after AckWait.
const pullExpiry = time.Second

// pullMost bounds how many messages are asked for at once.
const pullMost = 16

// puller asks the broker for as many messages as it is told to, with one request at a time. The client library's
// iterator prefetches, and with a prefetch of one it can miss to ask (nats.go v1.55.0: a pull that is still marked as
// being sent when its message arrives suppresses the next one, until the missing heartbeats are noticed).
type puller struct {
	nc      *nats.Conn
	subject string // of the pull requests
	inbox   string
	sub     *nats.Subscription
	ch      chan *nats.Msg
	lost    *time.Timer
}

// errConsumerGone is a consumer that was deleted under us.
var errConsumerGone = errors.New("the consumer is gone")

func newPuller(nc *nats.Conn, cons jetstream.Consumer) (*puller, error) {
	info := cons.CachedInfo()
	p := &puller{
		nc: nc, subject: "$JS.API.CONSUMER.MSG.NEXT." + info.Stream + "." + info.Name, inbox: nc.NewInbox(),
		ch: make(chan *nats.Msg, 64), lost: time.NewTimer(0),
	}
	var err error
	if p.sub, err = nc.ChanSubscribe(p.inbox, p.ch); err != nil {
		return nil, fmt.Errorf("subscribe to deliveries: %w", err)
	}
	return p, nil
}

// ask asks for up to n messages; the caller keeps a slot for each.
func (p *puller) ask(n int) error {
	if err := p.nc.PublishRequest(p.subject, p.inbox, fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, n, pullExpiry)); err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	p.lost.Reset(pullExpiry + time.Second) // past its expiry a request was lost, with a broker that went away perhaps
	return nil
}

// next returns a message, or nil when the request under way brings no more.
func (p *puller) next() (*nats.Msg, error) {
	select {
	case m := <-p.ch:
		return p.classify(m)
	case <-p.lost.C:
		return nil, nil
	}
}

// classify tells a message from a status of the pull. [doc] JetStream wire API: 404 and 408 nothing came, 409 the
// consumer or its leader changed, 503 nobody answers for it.
func (p *puller) classify(m *nats.Msg) (*nats.Msg, error) {
	status, description := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case status == "" || len(m.Data) > 0:
		return m, nil
	case status == "404" || status == "408":
		return nil, nil
	case status == "409" && description != "Consumer Deleted":
		return nil, nil
	}
	return nil, fmt.Errorf("%w: %s %s", errConsumerGone, status, description)
}

// close unsubscribes, and returns what came after its pull was given up.
func (p *puller) close() (left []*nats.Msg) {
	p.lost.Stop()
	_ = p.sub.Unsubscribe() // the connection is gone otherwise, and with it the subscription
	for {
		select {
		case m := <-p.ch:
			if m.Header.Get("Status") == "" {
				left = append(left, m)
			}
		default:
			return left
		}
	}
}

// delivery is a message with what an acknowledgement needs.
type delivery struct {
	nc  *nats.Conn
	msg *nats.Msg
}

// The acknowledgements of the JetStream wire API [doc].
const (
	ackDone       = "+ACK"
	ackLater      = "-NAK"
	ackInProgress = "+WPI"
)

func (d delivery) settle(out remediation.Outcome) error {
	switch {
	case out.Done:
		return d.nc.Publish(d.msg.Reply, []byte(ackDone))
	case out.After > 0:
		return d.nc.Publish(d.msg.Reply, fmt.Appendf(nil, `%s {"delay": %d}`, ackLater, out.After.Nanoseconds()))
	}
	return d.nc.Publish(d.msg.Reply, []byte(ackLater))
}

func (d delivery) inProgress() error { return d.nc.Publish(d.msg.Reply, []byte(ackInProgress)) }
