package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/health"
)

// denials keeps, by kind, what the broker denies outside of a call that waits for a reply, until a retry is allowed. Nothing
// else would report these: a denied pull request or acknowledgement gets no reply, and a subscription that the broker has
// removed is restored only by a new connection.
type denials struct {
	mu  sync.Mutex
	now map[denialKind]denial
}

type denialKind int

const (
	deniedReplies denialKind = iota // a subscription to an inbox
	deniedPull
	deniedAck
	denialKinds
)

type denial struct {
	subject string
	since   time.Time
}

var deniedSubscription = regexp.MustCompile(`(?i)Permissions Violation for Subscription to "([^"]+)"`)

// note records what an error denies, if it is of a kind that nothing else reports.
func (d *denials) note(err error) {
	kind, subject := denialKinds, ""
	if m := deniedSubscription.FindStringSubmatch(err.Error()); m != nil {
		kind, subject = deniedReplies, m[1]
	} else if m := deniedPublish.FindStringSubmatch(err.Error()); m != nil {
		switch subject = m[1]; {
		case strings.Contains(subject, ".CONSUMER.MSG.NEXT."):
			kind = deniedPull
		case strings.HasPrefix(subject, "$JS.ACK."):
			kind = deniedAck
		}
	}
	if kind == denialKinds {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now == nil {
		d.now = map[denialKind]denial{}
	}
	if was, known := d.now[kind]; known {
		d.now[kind] = denial{subject, was.since}
	} else {
		d.now[kind] = denial{subject, time.Now().UTC()}
	}
}

func (d *denials) get(kind denialKind) (denial, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	is, on := d.now[kind]
	return is, on
}

func (d *denials) clear(kind denialKind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.now, kind)
}

// repliesDenied reports whether the broker denies this process to receive replies.
func (b *Broker) repliesDenied() bool {
	_, is := b.denials.get(deniedReplies)
	return is
}

// conditions returns a condition for each kind of denial. Requests are taken even if they can't be acknowledged: they are
// redelivered, and the ledger recognises them.
func (d *denials) conditions() (all []health.Condition) {
	for kind, text := range [denialKinds]string{
		deniedReplies: "the broker does not let this user subscribe to %s, where it receives replies: set NATS_INBOX_PREFIX to what its permissions allow, or grant it that",
		deniedPull:    "the broker does not let this user ask for requests (publish on %s): no requests are taken",
		deniedAck:     "the broker does not let this user acknowledge requests (publish on %s): they are delivered again and again, and stay in their stream",
	} {
		if is, on := d.get(denialKind(kind)); on {
			c := health.New(health.Denied, fmt.Sprintf(text, is.subject))
			c.Since, c.Stops = is.since, denialKind(kind) != deniedAck
			all = append(all, c)
		}
	}
	return all
}

// retryDenied tries again what was denied, with a payload that the broker can't parse and so does not act on, and clears each
// denial that no longer holds. A crash loses the denials; the next process finds them out on its new connection.
func (b *Broker) retryDenied(ctx context.Context) {
	for kind := range denialKinds {
		is, on := b.denials.get(kind)
		if !on || !b.letThrough(ctx, kind, is.subject) {
			continue
		}
		b.denials.clear(kind)
		b.log.Info("the broker allows again what it denied", zap.String("subject", is.subject))
		if kind == deniedReplies { // a reconnect restores the subscriptions
			if err := b.nc.ForceReconnect(); err != nil {
				b.log.Warn("the connection to the broker can't be made again", zap.Error(err))
			}
		}
	}
}

// letThrough tries a subject, and reports whether the broker allows it now. The server sends a denial before it answers the
// flush that follows.
func (b *Broker) letThrough(ctx context.Context, kind denialKind, subject string) bool {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	before := b.nc.LastError()
	var err error
	if kind == deniedReplies {
		var sub *nats.Subscription
		if sub, err = b.nc.SubscribeSync(b.nc.NewInbox()); err == nil {
			defer func() { _ = sub.Unsubscribe() }()
		}
	} else {
		err = b.nc.Publish(subject, []byte("{"))
	}
	if err != nil || b.nc.FlushWithContext(ctx) != nil {
		return false
	}
	after := b.nc.LastError()
	return errors.Is(after, before) || !errors.Is(after, nats.ErrPermissionViolation)
}
