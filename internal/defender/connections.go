package defender

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 10 * time.Second // TCP, proxy and TLS together
	idleFor     = 30 * time.Second // well below the idle time-outs of servers and gateways
)

// connections is the pool of idle HTTP/1.1 connections to the API. http.Transport's own pool won't do: it retries a GET
// by itself on another connection, although one grant of the budget must be one exchange, and it connects after the
// grant, although the time between grant and write counts. HTTP/2 would add retries of its own for no gain at a hundred
// calls a minute.
type connections struct {
	transport *http.Transport
	scheme    string
	address   string

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	dials  sync.WaitGroup

	mu   sync.Mutex
	idle []*connection // the most recently used one last
}

// connection carries one exchange at a time.
type connection struct {
	*http.ClientConn
	wire *wire
	used time.Time
}

// wire counts the bytes written.
type wire struct {
	net.Conn
	written atomic.Int64
}

// Write counts what it writes.
func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.written.Add(int64(n))
	return n, err
}

// wireKey is the context key of the wire that a dial fills in below TLS.
type wireKey struct{}

func newConnections(base *url.URL, t *http.Transport) *connections {
	ctx, cancel := context.WithCancel(context.Background())
	c := &connections{scheme: base.Scheme, address: base.Host, ctx: ctx, cancel: cancel}
	if base.Port() == "" {
		port := map[string]string{"https": "443", "http": "80"}[base.Scheme]
		c.address = net.JoinHostPort(base.Hostname(), port)
	}
	if t == nil {
		t = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	c.transport = counting(t)
	return c
}

// counting returns a copy of t restricted to HTTP/1.1 and TLS 1.2 or newer, whose connections count their bytes.
func counting(t *http.Transport) *http.Transport {
	t = t.Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{}
	}
	t.TLSClientConfig.NextProtos = nil
	t.TLSClientConfig.MinVersion = max(t.TLSClientConfig.MinVersion, tls.VersionTLS12)
	t.MaxResponseHeaderBytes = maxError
	if t.DialContext == nil {
		t.DialContext = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	t.DialContext = wired(t.DialContext)
	if t.DialTLSContext != nil {
		t.DialTLSContext = wired(t.DialTLSContext)
	}
	return t
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func wired(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		w := ctx.Value(wireKey{}).(*wire)
		w.Conn = raw
		return w, nil
	}
}

// get returns an idle connection or dials a new one. A dial that takes longer than wait goes on without the caller, so
// that its connection is ready for the next attempt.
func (c *connections) get(ctx context.Context, wait time.Duration) (*connection, error) {
	if conn := c.takeIdle(); conn != nil {
		return conn, nil
	}
	type dialed struct {
		conn *connection
		err  error
	}
	result, left := make(chan dialed), make(chan struct{})
	defer close(left)
	if !c.begin() {
		return nil, net.ErrClosed
	}
	go func() {
		defer c.dials.Done()
		conn, err := c.dial()
		select {
		case result <- dialed{conn, err}:
		case <-left:
			if err == nil {
				c.put(conn)
			}
		}
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case d := <-result:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	}
}

// begin registers a dial, unless the pool is closed.
func (c *connections) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.dials.Add(1)
	return true
}

func (c *connections) dial() (*connection, error) {
	w := &wire{}
	ctx, cancel := context.WithTimeout(context.WithValue(c.ctx, wireKey{}, w), dialTimeout)
	defer cancel()
	var handshake error
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { handshake = err },
	})
	cc, err := c.transport.NewClientConn(traced, c.scheme, c.address)
	if err != nil {
		if handshake != nil {
			err = fmt.Errorf("%w: %w", errHandshake, err)
		}
		if w.Conn != nil {
			_ = w.Close() // a failed proxy or TLS step does not always close the connection below
		}
		if ctx.Err() != nil && c.ctx.Err() == nil {
			err = errors.Join(os.ErrDeadlineExceeded, err)
		}
		return nil, err
	}
	return &connection{ClientConn: cc, wire: w, used: time.Now()}, nil
}

var errHandshake = errors.New("TLS handshake")

// warm ensures that there is an idle connection.
func (c *connections) warm(ctx context.Context) error {
	conn, err := c.get(ctx, dialTimeout)
	if err == nil {
		c.put(conn)
	}
	return err
}

// put returns a connection to the pool. One that can't carry another exchange is closed.
func (c *connections) put(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil || conn.Err() != nil || conn.Available() == 0 {
		_ = conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

func (c *connections) takeIdle() *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := len(c.idle); n > 0; n = len(c.idle) {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		if conn.Err() == nil && time.Since(conn.used) < idleFor {
			return conn
		}
		_ = conn.Close()
	}
	return nil
}

// close closes idle connections and cancels dials. An exchange under way finishes, then its connection is closed.
func (c *connections) close() {
	c.mu.Lock()
	c.cancel()
	for _, conn := range c.idle {
		_ = conn.Close()
	}
	c.idle = nil
	c.mu.Unlock()
	c.dials.Wait()
}
