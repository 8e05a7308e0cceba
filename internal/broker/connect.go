package broker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Auth is how to sign in to a remote broker, as the nats command reads the
// NATS_... variables: user and password go before credentials, these before an
// nkey; a token goes beside any of them, and a user without password is a token.
type Auth struct {
	Creds, NKey           string // files: user JWT with its seed; seed
	User, Password, Token string
	CA, Cert, Key         string // files, PEM
}

// RefusedError is a refusal that waiting doesn't mend: the broker refuses the
// sign-in, or its certificate is none that this side trusts.
type RefusedError struct {
	URL    string // without credentials
	Advice string
	Err    error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("broker %s: %v: %s", e.URL, e.Err, e.Advice)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// options also reads every file that the sign-in needs: one that is missing is
// a mistake in the configuration and not an absent broker.
func (a Auth) options() ([]nats.Option, error) {
	var opts []nats.Option
	switch {
	case a.User != "" && a.Password != "":
		opts = append(opts, nats.UserInfo(a.User, a.Password))
	case a.Creds != "":
		creds := nats.UserCredentials(a.Creds)
		var read nats.Options
		if err := creds(&read); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		if _, err := read.UserJWT(); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		if _, err := read.SignatureCB([]byte("a nonce")); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		opts = append(opts, creds)
	case a.NKey != "":
		seed, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			return nil, fmt.Errorf("NATS_NKEY: %w", err)
		}
		opts = append(opts, seed)
	}
	switch {
	case a.Token != "":
		opts = append(opts, nats.Token(a.Token))
	case a.Password == "" && a.User != "":
		opts = append(opts, nats.Token(a.User))
	}
	if a.Cert != "" {
		opts = append(opts, nats.ClientCert(a.Cert, a.Key))
	}
	if a.CA != "" {
		opts = append(opts, nats.RootCAs(a.CA))
	}
	return opts, nil
}

func (b *Broker) remoteOptions() (nats.Options, error) {
	urls, redacted, err := b.cfg.servers()
	if err != nil {
		return nats.Options{}, err
	}
	b.url = strings.Join(redacted, ",")
	auth, err := b.cfg.Auth.options()
	if err != nil {
		return nats.Options{}, err
	}
	opts, err := b.options(auth...)
	if err != nil {
		return opts, fmt.Errorf("NATS_CA, NATS_CERT, NATS_KEY: %w", err)
	}
	opts.Servers = urls
	return opts, nil
}

// options are those of every connection, with more.
func (b *Broker) options(more ...nats.Option) (nats.Options, error) {
	opts := nats.GetDefaultOptions()
	for _, o := range append([]nats.Option{
		nats.Name(b.cfg.ClientName),
		nats.Timeout(apiTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 750*time.Millisecond),
		// What is published while disconnected fails at once, instead of being
		// sent some time after its sender has given up on it.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		// A sign-in that worked can be refused for a while: an account server
		// that is away, credentials about to be renewed in their file.
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

// connect waits until there is a connection.
func (b *Broker) connect(ctx context.Context, opts nats.Options) error {
	err := b.persist(ctx, "connect to the broker "+b.url, func(ctx context.Context) error {
		nc, err := connectWithin(ctx, opts)
		if err == nil {
			b.nc = nc
			return nil
		}
		if advice := b.refusal(err); advice != "" {
			return &RefusedError{URL: b.url, Err: err, Advice: advice}
		}
		return again{err}
	})
	if err != nil {
		return err
	}
	b.log.Info("connected to the broker", zap.String("url", b.url), zap.String("server", b.nc.ConnectedServerName()),
		zap.String("version", b.nc.ConnectedServerVersion()))
	if _, err := b.nc.TLSConnectionState(); err != nil && b.cfg.tellsSecret() && !onLoopback(b.nc.ConnectedAddr()) {
		b.log.Warn("the sign-in crosses the network in clear: use tls:// in NATS_URL, or NATS_NKEY or NATS_CREDS, which send no secret", zap.String("url", b.url))
	}
	b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(apiTimeout), jetstream.WithPublishAsyncTimeout(apiTimeout))
	if err != nil {
		b.nc.Close()
		return fmt.Errorf("use JetStream: %w", err)
	}
	return nil
}

// connectWithin returns when ctx ends, though the client library knows no
// context: its attempt then ends in the background, at its own time limit.
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

// refusal is what to do about an error that waiting doesn't mend, else "".
func (b *Broker) refusal(err error) string {
	for _, refused := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported} {
		if errors.Is(err, refused) {
			return "it refuses the sign-in " + b.signIn()
		}
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var remote *net.OpError
	switch {
	case errors.As(err, &unknown):
		return "set NATS_CA to a file with the authority that signed its certificate"
	case errors.As(err, &name):
		return "use a name in NATS_URL that its certificate bears"
	case errors.As(err, &invalid):
		return "have the certificate of the server in NATS_URL renewed, or correct this machine's clock or NATS_CA, against which it is checked"
	case errors.As(err, &remote) && remote.Op == "remote error" && strings.Contains(remote.Err.Error(), "certificate"):
		return "it refuses the client certificate: check NATS_CERT and NATS_KEY"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "it offers no TLS: take NATS_CA, NATS_CERT and tls:// out of the configuration, or turn TLS on there"
	}
	return ""
}

// tellsSecret is whether the sign-in sends a password or a token, instead of a signature.
func (c Config) tellsSecret() bool {
	return c.URL != "" && (c.Auth.Password != "" || c.Auth.Token != "" || c.Auth.User != "" || strings.Contains(c.URL, "@"))
}

// onLoopback is whether an address is on this machine; "", as of a server in this process, is.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip := net.ParseIP(host)
	return ip == nil || ip.IsLoopback()
}

// signIn names the variables that the sign-in came from.
func (b *Broker) signIn() string {
	switch {
	case b.cfg.URL == "" && b.tokenFile == "":
		return "(WORKER_EMBEDDED_TOKEN)"
	case b.cfg.URL == "" && b.cfg.EmbeddedToken == "":
		return "without a token: " + b.tokenFile + " is not there; set WORKER_DATA_DIR to that of the running worker, whose file token has it, or WORKER_EMBEDDED_TOKEN"
	case b.cfg.URL == "":
		return "(the token in " + b.tokenFile + ", WORKER_DATA_DIR)"
	}
	a := b.cfg.Auth
	var used []string
	for _, v := range [][2]string{
		{"NATS_USER", a.User},
		{"NATS_PASSWORD", a.Password},
		{"NATS_CREDS", a.Creds},
		{"NATS_NKEY", a.NKey},
		{"NATS_TOKEN", a.Token},
		{"NATS_CERT", a.Cert},
	} {
		if v[1] != "" {
			used = append(used, v[0])
		}
	}
	if strings.Contains(b.cfg.URL, "@") {
		used = append(used, "NATS_URL")
	}
	if used == nil {
		return "without credentials: set NATS_CREDS, NATS_NKEY, NATS_USER and NATS_PASSWORD, or NATS_TOKEN"
	}
	return "(" + strings.Join(used, ", ") + ")"
}

func (b *Broker) onError(nc *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		if cancel := b.denied.Load(); cancel != nil {
			(*cancel)(&DeniedError{Err: err})
			return
		}
		if b.replyDenied(err) {
			return
		}
	}
	if !nc.IsConnected() { // one of those that come while it reconnects
		b.absent(err)
	}
	var fields []zap.Field
	if sub != nil {
		fields = append(fields, zap.String("subject", sub.Subject))
	}
	b.repeating.Warn(err.Error(), fields...)
}

func (b *Broker) absent(err error) {
	reason := "disconnected"
	if err != nil {
		reason = err.Error()
	}
	b.absence.Store(&reason)
}

func (b *Broker) onDisconnect(nc *nats.Conn, err error) {
	b.absent(err)
	if !nc.IsClosed() { // else it is Close at work
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
	close(b.closed)
}
