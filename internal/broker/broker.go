// Package broker is the NATS side of the worker: the embedded or remote server,
// its streams, consumer and buckets, and all that is kept or published there.
// It is the only place that knows their names.
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

// Config says which broker and what is expected there. The zero value is an
// embedded broker in ./data that nobody else can reach.
type Config struct {
	URL  string // servers, comma-separated; empty: the embedded broker
	Auth Auth   // for URL
	// Domain is the JetStream domain at URL, and InboxPrefix begins the subjects of answers there; empty: the usual.
	Domain, InboxPrefix string

	DataDir       string // the embedded broker's store, default ./data
	EmbeddedAddr  string // where it listens: HOST:PORT, port 0 a free one; empty: in process only
	EmbeddedToken string // what its clients must sign in with; empty: kept in DataDir, which is enough on loopback alone
	SyncInterval  bool   // for benchmarks: acknowledge before the disk has it

	Names      Names
	Tenant     string          // stands in the source of results; empty: none
	Provision  bool            // create what is missing
	ReadOnly   bool            // of a command that only looks: Provision writes nothing
	Windows    []budget.Window // of the call budget; their streams, which rates.Store makes, are asked for where nothing is created
	Replicas   int             // of what is created, default 1
	AckWait    time.Duration   // of the consumer, if it is created; default 20 s
	ClientName string          // how the broker's own lists call this connection

	// TracerProvider makes a span of each message that is published for a request; nil: none.
	TracerProvider trace.TracerProvider

	// OnWait is told why Open, Dial or Provision waits, whenever the reason changes.
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
// itself. Its methods may be called at the same time, Close excepted.
type Broker struct {
	cfg      Config
	topology topology
	log      *zap.Logger
	// repeating is log for what the library and the server say again and
	// again: each message once a minute.
	repeating *zap.Logger
	url       string
	embedded  *embedded // nil: remote
	tokenFile string    // of Dial: where the embedded broker's token is, or was looked for; "": WORKER_EMBEDDED_TOKEN

	nc            *nats.Conn
	signedIn      atomic.Pointer[nats.Conn] // nc, for callbacks of the client library, which may come before connect has returned
	js            jetstream.JetStream
	ledger, state *stream.Bucket
	closed        chan struct{} // closed when the connection has ended for good
	results       chan struct{} // full when there are results that the tally's record lacks
	stirring      chan struct{} // full when what this replica says of itself may have changed
	lost          chan struct{} // closed by lose, once only a new Broker helps
	lose          func()

	absence atomic.Pointer[string] // why there is no connection
	// denied ends the JetStream calls under way with what the broker denied:
	// it says so beside the call, which would only time out.
	denied       atomic.Pointer[context.CancelCauseFunc]
	denials      denials                          // what is denied beside a call
	refused      atomic.Pointer[refusal]          // the last that was denied
	trying       atomic.Int32                     // calls of denies, which say themselves what is denied
	provisioning sync.Mutex                       // one look at the streams at a time
	found        atomic.Pointer[found]            // by Provision and Keep; never nil
	broken       atomic.Pointer[health.Condition] // what Keep can't mend; nil: nothing
	once         sync.Once                        // of Close
	ended        error
}

// Open starts the embedded broker if no URL is given, and connects. An absent
// broker is waited for until ctx ends. A refusal that waiting doesn't mend ends
// it: *RefusedError; a store that another process has: *LockedError; a taken
// port: an error that is syscall.EADDRINUSE.
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

// errDialTooLong is why Dial gives up by itself.
var errDialTooLong = errors.New("gave up after 10 s")

// Dial connects for a command that is no worker: without a URL to the embedded
// broker of one that runs at EmbeddedAddr. It tries until ctx ends, 10 s if ctx
// has no deadline. Errors as Open's; that of an absent broker says what to do.
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
	b := &Broker{cfg: cfg, topology: newTopology(cfg), log: log, closed: make(chan struct{}), results: make(chan struct{}, 1), stirring: make(chan struct{}, 1)}
	b.lost = make(chan struct{})
	b.lose = sync.OnceFunc(func() { close(b.lost) })
	b.repeating = log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return NewSampler(core, time.Minute, 1, 0)
	}))
	b.found.Store(&found{})
	return b
}

// Close sends out what was published, closes the connection, and then stops
// the embedded broker and frees its store. ctx bounds the sending alone.
// Subscriptions are not drained: their owners end them first.
func (b *Broker) Close(ctx context.Context) error {
	b.once.Do(func() {
		if b.nc.IsConnected() {
			ctx, cancel := context.WithTimeout(ctx, apiTimeout) // it wants a deadline
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

// giveUp is for an embedded broker that can't be started anew in this process.
func (b *Broker) giveUp(err error) {
	b.log.Error("the embedded broker is lost", zap.Error(err))
	b.lose()
}

func (b *Broker) stopEmbedded() {
	if b.embedded != nil {
		b.embedded.stop()
	}
}

// Connected is nil, or why there is no connection now.
func (b *Broker) Connected() error {
	if b.nc.IsConnected() {
		return nil
	}
	reason := b.nc.Status().String()
	if err := b.nc.LastError(); err != nil { // a TLS handshake that fails amid a reconnection is told here alone
		reason = b.reason(err)
	} else if r := b.absence.Load(); r != nil {
		reason = *r
	}
	return fmt.Errorf("no connection to the broker %s: %s", b.url, reason)
}

// Lost is closed when the connection has ended for good, by Close or because
// the broker broke the protocol: the client library then reconnects no more;
// and when the embedded broker can't be started anew. Only a new Broker in a
// new process helps.
func (b *Broker) Lost() <-chan struct{} { return b.lost }

// StoreFault is why the embedded broker stores nothing at present. It ends by itself once the disk can be written.
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

// SignIn is what another program's terminal needs to reach the embedded broker, a line of shell without the token itself; ""
// for one that does not listen or is no process of this one.
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

// Domain is the JetStream domain in use; the embedded broker has none.
func (b *Broker) Domain() string {
	if b.cfg.URL == "" {
		return ""
	}
	return b.cfg.Domain
}

// MaxPayload is how many bytes of headers and payload the broker takes in a message.
func (b *Broker) MaxPayload() int { return int(b.nc.MaxPayload()) }

// SmallPayload says what a broker that takes small messages alone can't hold; "": everything fits.
func (b *Broker) SmallPayload() string {
	if most := b.MaxPayload(); most < ledger.LeastMaxPayload {
		return fmt.Sprintf("it takes messages of %d bytes (max_payload), and %d hold everything: larger requests are rejected as %s, larger actions are left out of results",
			most, ledger.LeastMaxPayload, message.CodeTooLarge)
	}
	return ""
}
