// Package broker is the NATS side of the worker: the embedded or remote server,
// its streams, consumers and buckets, and everything that is stored or published
// there. Only this package knows their names.
package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// apiTimeout bounds one call of the JetStream API.
const apiTimeout = stream.Timeout

// Config says which broker to use and what it must have. The zero value is an
// embedded broker in ./data that no other process can reach.
type Config struct {
	URL  string // servers, comma-separated; empty: the embedded broker
	Auth Auth   // for URL
	// Domain is the JetStream domain at URL, and InboxPrefix begins the subjects of replies there; empty: the defaults.
	Domain, InboxPrefix string

	DataDir       string // the embedded broker's store, default ./data
	EmbeddedAddr  string // where it listens: HOST:PORT, port 0 for a free one; empty: in process only
	EmbeddedToken string // what its clients must sign in with; empty: kept in DataDir, which is allowed on loopback only
	SyncInterval  bool   // for benchmarks: acknowledge before the data is synced to disk

	Names      Names
	Tenant     string          // part of the source of results; empty: none
	Provision  bool            // create what is missing
	ReadOnly   bool            // for a command that only reads: Provision writes nothing
	Windows    []budget.Window // of the call budget; rates.Store creates their streams, and without Provision they must exist
	Replicas   int             // of what is created, default 1
	AckWait    time.Duration   // of the consumer, if it is created; default 20 s
	ClientName string          // name of this connection in the broker's own lists

	// TracerProvider makes a span for each message that is published for a request; nil: no spans.
	TracerProvider trace.TracerProvider

	// OnWait is called with the reason why Open, Dial or Provision waits, whenever the reason changes.
	OnWait func(reason string)
}

func (c Config) withDefaults() Config {
	c.Names = c.Names.withDefaults()
	if c.DataDir == "" {
		c.DataDir = "./data"
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.AckWait == 0 {
		c.AckWait = defaultAckWait
	}
	if c.ClientName == "" {
		c.ClientName = "unrestrict-worker"
	}
	return c
}

// Broker is a connection to the broker and, if it is embedded, the broker
// itself. Its methods may be called concurrently, except Close.
type Broker struct {
	cfg      Config
	topology topology
	log      *zap.Logger
	// repeating is log for what the client library and the server repeat: it
	// writes each message once a minute.
	repeating *zap.Logger
	url       string
	embedded  *embedded // nil: remote
	tokenFile string    // of Dial: the file with the embedded broker's token, which may not exist; "": WORKER_EMBEDDED_TOKEN

	nc            *nats.Conn
	signedIn      atomic.Pointer[nats.Conn] // nc, for callbacks of the client library, which may run before connect has returned
	js            jetstream.JetStream
	ledger, state *stream.Bucket
	closed        chan struct{} // closed when the connection has been closed and won't reconnect
	results       chan struct{} // has a token when there are results that the tally's record lacks
	presenceStale chan struct{} // has a token when this replica's presence record may be out of date
	lost          chan struct{} // closed by lose, when only a new Broker helps
	lose          func()

	absence atomic.Pointer[string] // why there is no connection
	// denied cancels the JetStream calls under way with what the broker denied. The
	// denial arrives outside of the call, which would otherwise only time out.
	denied       atomic.Pointer[context.CancelCauseFunc]
	denials      denials                          // what is denied outside of a call
	refused      atomic.Pointer[refusal]          // the last denial
	trying       atomic.Int32                     // running calls of denies, which report denials themselves
	provisioning sync.Mutex                       // one inspection of the streams at a time
	found        atomic.Pointer[found]            // by Provision and Keep; never nil
	broken       atomic.Pointer[health.Condition] // what Keep can't repair; nil: nothing
	once         sync.Once                        // of Close
	ended        error
}

// Open starts the embedded broker if no URL is given, and connects. It waits for
// a broker that is not reachable until ctx ends. It fails at once if waiting does
// not help: with *RefusedError if the broker refuses the connection, *LockedError
// if another process uses the store, and syscall.EADDRINUSE if the port is taken.
func Open(ctx context.Context, cfg Config, log *zap.Logger) (*Broker, error) {
	cfg = cfg.withDefaults()
	b := newBroker(cfg, log)
	options := b.remoteOptions
	var err error
	if cfg.URL == "" {
		if b.embedded, err = startEmbedded(ctx, cfg, b.repeating, b.giveUp); err != nil {
			return nil, err
		}
		b.url = b.embedded.url
		options = func() (nats.Options, error) {
			return b.options(nats.InProcessServer(b.embedded), nats.Token(b.embedded.token))
		}
	}
	if err := b.connect(ctx, options); err != nil {
		b.stopEmbedded()
		return nil, err
	}
	return b, nil
}

// errDialTooLong is the cause when Dial gives up by itself.
var errDialTooLong = errors.New("gave up after 10 s")

// Dial connects for a command that is not a worker. Without a URL it connects to
// the embedded broker of the worker that runs at EmbeddedAddr. It tries until ctx
// ends, for 10 s if ctx has no deadline. Its errors are those of Open; the one
// about a broker that is not reachable says what to do.
func Dial(ctx context.Context, cfg Config, log *zap.Logger) (*Broker, error) {
	cfg = cfg.withDefaults()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, 10*time.Second, errDialTooLong)
		defer cancel()
	}
	b := newBroker(cfg, log)
	advice := "check NATS_URL"
	options := b.remoteOptions
	var err error
	if cfg.URL == "" {
		advice = "is `worker run` running at WORKER_EMBEDDED_ADDR? For another broker set NATS_URL"
		b.url = "nats://" + Dialable(cfg.EmbeddedAddr)
		if b.cfg.EmbeddedToken == "" {
			if b.cfg.EmbeddedToken, b.tokenFile, err = keptToken(cfg); err != nil {
				return nil, err
			}
		}
		options = func() (nats.Options, error) {
			opts, err := b.options(nats.TokenHandler(latest(b.tokenFile, b.cfg.EmbeddedToken)))
			opts.Servers = []string{b.url}
			return opts, err
		}
	}
	err = b.connect(ctx, options)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %s", err, advice)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func newBroker(cfg Config, log *zap.Logger) *Broker {
	log = log.Named("broker")
	b := &Broker{cfg: cfg, topology: newTopology(cfg), log: log, closed: make(chan struct{}), results: make(chan struct{}, 1), presenceStale: make(chan struct{}, 1)}
	b.lost = make(chan struct{})
	b.lose = sync.OnceFunc(func() { close(b.lost) })
	b.repeating = log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return NewSampler(core, time.Minute, 1, 0)
	}))
	b.found.Store(&found{})
	return b
}

// Close flushes what was published, closes the connection, then stops the
// embedded broker and unlocks its store. ctx bounds only the flush.
// Subscriptions are not drained: their owners end them first.
func (b *Broker) Close(ctx context.Context) error {
	b.once.Do(func() {
		if b.nc.IsConnected() {
			ctx, cancel := context.WithTimeout(ctx, apiTimeout) // FlushWithContext requires a deadline
			defer cancel()
			if err := b.nc.FlushWithContext(ctx); err != nil {
				b.ended = fmt.Errorf("flush the connection to the broker: %w", err)
			}
		}
		b.nc.Close()
		<-b.closed
		b.stopEmbedded()
	})
	return b.ended
}

// giveUp handles an embedded broker that can't be restarted in this process.
func (b *Broker) giveUp(err error) {
	b.log.Error("the embedded broker is lost", zap.Error(err))
	b.lose()
}

func (b *Broker) stopEmbedded() {
	if b.embedded != nil {
		b.embedded.stop()
	}
}

// Connected returns nil, or an error that says why there is no connection now.
func (b *Broker) Connected() error {
	if b.nc.IsConnected() {
		return nil
	}
	reason := b.nc.Status().String()
	if err := b.nc.LastError(); err != nil { // the only place that reports a TLS handshake that fails during a reconnect
		reason = b.reason(err)
	} else if r := b.absence.Load(); r != nil {
		reason = *r
	}
	return fmt.Errorf("no connection to the broker %s: %s", b.url, reason)
}

// Lost is closed when only a new Broker in a new process helps: the connection
// was closed, by Close or by the client library, which does not reconnect after
// a protocol error of the broker; or the embedded broker can't be restarted.
func (b *Broker) Lost() <-chan struct{} { return b.lost }

// StoreFault returns why the embedded broker stores nothing now. The fault ends by itself when the disk can be written again.
func (b *Broker) StoreFault() StoreFault {
	if b.embedded == nil {
		return StoreFault{}
	}
	return b.embedded.Fault()
}

// StoreNearlyFull warns that the embedded broker's store or its disk has little room left; "": it has enough.
func (b *Broker) StoreNearlyFull() string {
	if b.embedded == nil {
		return ""
	}
	return b.embedded.nearlyFullReason()
}

// URL is the clients' URL, or several, comma-separated, without credentials.
// It is empty for an embedded broker that does not listen.
func (b *Broker) URL() string { return b.url }

// SignIn is a line of shell that lets another terminal reach the embedded broker; it does not contain the token itself. It is ""
// if the embedded broker does not listen, or if this process does not run one.
func (b *Broker) SignIn() string {
	if b.embedded == nil || b.embedded.url == "" {
		return ""
	}
	return b.embedded.signIn()
}

// Names are the names in use.
func (b *Broker) Names() Names { return b.cfg.Names }

// JS is the JetStream API.
func (b *Broker) JS() jetstream.JetStream { return b.js }

// Conn is the connection.
func (b *Broker) Conn() *nats.Conn { return b.nc }

// Domain is the JetStream domain in use; the embedded broker has none, so it is "".
func (b *Broker) Domain() string {
	if b.cfg.URL == "" {
		return ""
	}
	return b.cfg.Domain
}

// MaxPayload is how many bytes of headers and payload the broker accepts in a message.
func (b *Broker) MaxPayload() int { return int(b.nc.MaxPayload()) }

// SmallPayload says what does not fit if the broker accepts only small messages; "": everything fits.
func (b *Broker) SmallPayload() string {
	if most := b.MaxPayload(); most < ledger.LeastMaxPayload {
		return fmt.Sprintf("it takes messages of %d bytes (max_payload), and %d hold everything: larger requests are rejected as %s, larger actions are left out of results",
			most, ledger.LeastMaxPayload, message.CodeTooLarge)
	}
	return ""
}
