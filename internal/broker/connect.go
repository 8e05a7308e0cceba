package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
)

func (b *Broker) remoteOptions() (nats.Options, error) {
	urls, redacted, err := b.cfg.servers()
	if err != nil {
		return nats.Options{}, err
	}
	b.url = strings.Join(redacted, ",")
	signIn := b.cfg.Auth
	if strings.Contains(b.cfg.URL, "@") {
		signIn.TokenFile = "" // the client library rejects a token handler if the URL has credentials
	}
	auth, err := signIn.options()
	if err != nil {
		return nats.Options{}, err
	}
	if b.cfg.InboxPrefix != "" {
		auth = append(auth, nats.CustomInboxPrefix(b.cfg.InboxPrefix))
	}
	if signIn.NKey != "" {
		auth = append(auth, nats.ReconnectToServer(b.renewKey))
	}
	opts, err := b.options(auth...)
	if err != nil {
		return opts, fmt.Errorf("NATS_CA, NATS_CERT, NATS_KEY: %w", err)
	}
	opts.Servers = urls
	return opts, nil
}

// options returns the options of every connection, plus more.
func (b *Broker) options(more ...nats.Option) (nats.Options, error) {
	opts := nats.GetDefaultOptions()
	for _, o := range append([]nats.Option{
		nats.Name(b.cfg.ClientName),
		nats.Timeout(apiTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 750*time.Millisecond),
		// Publishing while disconnected fails at once. Otherwise the message could be
		// sent some time after its sender has given up.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		// A sign-in that worked before can be refused for a while: the account server
		// is down, or the credentials are about to be renewed in their file.
		nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(b.onError),
		nats.DisconnectErrHandler(b.onDisconnect),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.absent(err) }),
		nats.ReconnectHandler(b.onReconnect),
		nats.ClosedHandler(b.onClosed),
	}, more...) {
		if err := o(&opts); err != nil {
			return opts, err
		}
	}
	return opts, nil
}

// connect waits until there is a connection. options reads the sign-in files again for each attempt.
func (b *Broker) connect(ctx context.Context, options func() (nats.Options, error)) error {
	opts, err := options()
	if err != nil {
		return err
	}
	err = b.persist(ctx, "connect to the broker "+b.url, func(ctx context.Context) error {
		if now, err := options(); err == nil { // otherwise a file is just being written: keep the previous options
			opts = now
		}
		nc, err := connectWithin(ctx, opts)
		if err == nil {
			b.nc = nc
			b.signedIn.Store(nc)
			return b.checkInbox(ctx)
		}
		if advice := b.refusal(err); advice != "" {
			return &RefusedError{URL: b.url, Err: err, Advice: advice}
		}
		silent, ok := errors.AsType[*net.OpError](err)
		if (ok && silent.Op == "read" && silent.Timeout() || errors.Is(err, io.EOF)) && !b.cfg.Auth.TLSFirst {
			err = fmt.Errorf("%w: it accepts connections and says nothing: if it begins with TLS (handshake_first), set NATS_TLS_FIRST", err)
		}
		return retryable{err}
	})
	if err != nil {
		return err
	}
	b.log.Info("connected to the broker", zap.String("url", b.url), zap.String("server", b.nc.ConnectedServerName()),
		zap.String("version", b.nc.ConnectedServerVersion()))
	if _, err := b.nc.TLSConnectionState(); err != nil && b.cfg.sendsSecret() && !onLoopback(b.nc.ConnectedAddr()) {
		b.log.Warn("the sign-in crosses the network in clear: use tls:// in NATS_URL, or NATS_NKEY or NATS_CREDS, which send no secret", zap.String("url", b.url))
	}
	limits := []jetstream.JetStreamOpt{jetstream.WithDefaultTimeout(apiTimeout), jetstream.WithPublishAsyncTimeout(apiTimeout)}
	if b.Domain() != "" {
		b.js, err = jetstream.NewWithDomain(b.nc, b.Domain(), limits...)
	} else {
		b.js, err = jetstream.New(b.nc, limits...)
	}
	if err != nil {
		b.nc.Close()
		return fmt.Errorf("use JetStream: %w", err)
	}
	b.ledger, b.state = stream.NewBucket(b.js, LedgerBucket), stream.NewBucket(b.js, StateBucket)
	return nil
}

// checkInbox checks that this user may subscribe to its inbox, where replies arrive: without that permission every call would
// only time out. If the connection is lost meanwhile, the next call reports it.
func (b *Broker) checkInbox(ctx context.Context) error {
	sub, err := b.nc.SubscribeSync(b.nc.NewInbox())
	if err != nil {
		return nil //nolint:nilerr // the connection is lost
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, _ = b.nc.FlushWithContext(ctx), sub.Unsubscribe()
	if err := b.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		b.nc.Close()
		return &RefusedError{URL: b.url, Err: err, Advice: "set NATS_INBOX_PREFIX to what the subjects of this user's answers may begin with, or grant it this one"}
	}
	return nil
}

// connectWithin connects, and returns when ctx ends. The client library takes
// no context, so its attempt then ends in the background, at its own timeout.
func connectWithin(ctx context.Context, opts nats.Options) (*nats.Conn, error) {
	type outcome struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		nc, err := opts.Connect()
		done <- outcome{nc, err}
	}()
	select {
	case o := <-done:
		return o.nc, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil {
				o.nc.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (b *Broker) onError(nc *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		if b.replyDenied(err) {
			return
		}
		b.denials.note(err)
		b.refused.Store(&refusal{err, time.Now()})
		if b.trying.Load() > 0 {
			return
		}
		if cancel := b.denied.Load(); cancel != nil {
			(*cancel)(&DeniedError{Err: err})
			return
		}
	}
	if !nc.IsConnected() { // an error of a reconnect attempt
		b.absent(err)
	}
	var fields []zap.Field
	if sub != nil {
		fields = append(fields, zap.String("subject", sub.Subject))
	}
	b.repeating.Warn(b.reason(err), fields...)
}

func (b *Broker) absent(err error) {
	reason := "disconnected"
	if err != nil {
		reason = b.reason(err)
	}
	b.absence.Store(&reason)
}

// reason is the text of an error with what to do about it. A sign-in that is refused after it was accepted once is not fatal:
// the credentials may be about to change, in the files here or at the broker.
func (b *Broker) reason(err error) string {
	if advice := b.refusal(err); advice != "" {
		return err.Error() + ": " + advice
	}
	return err.Error()
}

func (b *Broker) onDisconnect(nc *nats.Conn, err error) {
	b.absent(err)
	if !nc.IsClosed() { // otherwise Close did it
		b.log.Warn("connection to the broker lost", zap.String("url", b.url), zap.Error(err))
	}
}

func (b *Broker) onReconnect(nc *nats.Conn) {
	b.absence.Store(nil)
	b.log.Info("connected to the broker again", zap.String("url", b.url), zap.String("server", nc.ConnectedServerName()))
}

func (b *Broker) onClosed(nc *nats.Conn) {
	if err := nc.LastError(); err != nil {
		b.absent(err)
	}
	b.lose()
	close(b.closed)
}

// refusal is the broker's last denial, and when it came.
type refusal struct {
	err error
	at  time.Time
}

// withDenial adds to the error of a call what the broker denied meanwhile. The denial arrives outside of the call, which only
// times out.
func (b *Broker) withDenial(err error) error {
	if d := b.refused.Load(); err != nil && d != nil && time.Since(d.at) < 2*apiTimeout && !errors.Is(err, d.err) {
		return fmt.Errorf("%w: %w", err, d.err)
	}
	return err
}

// denies checks whether this user may publish on a subject, while other calls are under way; nil: it may, or that is not known.
func (b *Broker) denies(ctx context.Context, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	b.trying.Add(1)
	defer b.trying.Add(-1)
	began := time.Now()
	err := b.tryPublish(ctx, subject)
	if d := b.refused.Load(); err != nil && d != nil && !d.at.Before(began) && strings.Contains(d.err.Error(), subject) {
		return d.err
	}
	return nil
}

// deniedPublish finds the subject in the text of the server's error, which has no other form.
var deniedPublish = regexp.MustCompile(`(?i)Permissions Violation for Publish to "([^"]+)"`)

// replyDenied logs that the broker denied to publish a result on a request's replyTo, and reports whether err is that. Only
// results are published on subjects that are not the worker's. The denial arrives after the publish has returned, so the
// request's handler can't report it.
func (b *Broker) replyDenied(err error) bool {
	m := deniedPublish.FindStringSubmatch(err.Error())
	ours := func(own string) bool { return server.SubjectMatchesFilter(m[1], own) }
	if m == nil || strings.HasPrefix(m[1], "$") || slices.ContainsFunc(b.cfg.Names.OwnSubjects(), ours) {
		return false
	}
	b.log.Warn("a result did not reach its request's replyTo: the broker denies the worker to publish there; allow it, or let the requests name another subject",
		zap.String("reply_to", m[1]))
	return true
}
