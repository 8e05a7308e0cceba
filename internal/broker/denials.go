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

// What the broker denies beside a call that waits for its answer would be silent: nobody answers a pull request or an
// acknowledgement that was not let through, and a subscription that was taken away comes back with a new connection alone.
// What is denied so is kept, by kind, until it is tried again and let through.
type denials struct {
	mu  sync.Mutex
	now map[denialKind]denial
}

type denialKind int

const (
	deniedAnswers denialKind = iota // a subscription
	deniedPull
	deniedAck
	denialKinds
)

type denial struct {
	subject string
	since   time.Time
}

var deniedSubscription = regexp.MustCompile(`(?i)Permissions Violation for Subscription to "([^"]+)"`)

// note keeps what an error denies, if it is of a kind that nothing else says.
func (d *denials) note(err error) {
	kind, subject := denialKinds, ""
	if m := deniedSubscription.FindStringSubmatch(err.Error()); m != nil {
		kind, subject = deniedAnswers, m[1]
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

func (d *denials) over(kind denialKind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.now, kind)
}

// deaf reports whether answers do not reach this process.
func (b *Broker) deaf() bool {
	_, is := b.denials.get(deniedAnswers)
	return is
}

// conditions name what is denied. What can't be acknowledged is taken all the same: it comes again, and the ledger knows it.
func (d *denials) conditions() (all []health.Condition) {
	for kind, text := range [denialKinds]string{
		deniedAnswers: "the broker denies this user to subscribe to %s, where its answers come: set NATS_INBOX_PREFIX to what its permissions allow, or grant it that",
		deniedPull:    "the broker denies this user to ask for requests (publish on %s): nothing is taken",
		deniedAck:     "the broker denies this user to acknowledge requests (publish on %s): they come again and again, and stay in their stream",
	} {
		if is, on := d.get(denialKind(kind)); on {
			c := health.New(health.Denied, fmt.Sprintf(text, is.subject))
			c.Since, c.Stops = is.since, denialKind(kind) != deniedAck
			all = append(all, c)
		}
	}
	return all
}

// retryDenied tries what is denied again, in a form that the broker understands as nothing, and forgets what is let through.
// A crash in between leaves a new connection, which finds out for itself.
func (b *Broker) retryDenied(ctx context.Context) {
	for kind := range denialKinds {
		is, on := b.denials.get(kind)
		if !on || !b.letThrough(ctx, kind, is.subject) {
			continue
		}
		b.denials.over(kind)
		b.log.Info("the broker allows again what it denied", zap.String("subject", is.subject))
		if kind == deniedAnswers { // the subscriptions are made again with the connection
			if err := b.nc.ForceReconnect(); err != nil {
				b.log.Warn("the connection to the broker is not made anew", zap.Error(err))
			}
		}
	}
}

// letThrough tries a subject. The server's denial comes before its answer to the flush behind it.
func (b *Broker) letThrough(ctx context.Context, kind denialKind, subject string) bool {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	before := b.nc.LastError()
	var err error
	if kind == deniedAnswers {
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
