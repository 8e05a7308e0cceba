package crash_test

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands between one replica and the broker. It can hold everything back, as a network that drops packets does,
// delay it, and spring a trap.
type proxy struct {
	addr     string
	server   string
	sprung   func(frame) *trap // the trap that a frame from the client springs, or nil
	listener net.Listener

	mu     sync.Mutex
	delay  time.Duration
	open   chan struct{} // closed while frames pass
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

func newProxy(t *testing.T, server string, sprung func(frame) *trap) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), server: server, sprung: sprung, listener: l, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.open)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.drop(client, server)
	c := &passing{proxy: p}
	up := make(chan struct{})
	go func() {
		defer close(up)
		_ = c.pump(client, server, c.request)
		_ = server.(*net.TCPConn).CloseWrite() // and not Close, which can take back what was sent
	}()
	_ = c.pump(server, client, c.response)
	client.Close()
	<-up
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

func (p *proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) close() {
	p.stall(false)
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.cut()
	p.wg.Wait()
}

// stall holds everything back; what is held back arrives when it ends, if its connection lives.
func (p *proxy) stall(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		if on {
			p.open = make(chan struct{})
		}
	default:
		if !on {
			close(p.open)
		}
	}
}

func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *proxy) state() (delay time.Duration, open chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay, p.open
}

// passing is one connection of the replica.
type passing struct {
	*proxy
	mu   sync.Mutex
	trap *trap // sprung by a request on its way
	wait string
}

var errKilled = errors.New("the replica was killed")

// pump passes frames on, each as late as the proxy says, and without changing their order.
func (c *passing) pump(from, to net.Conn, pass func(frame, net.Conn) error) error {
	type due struct {
		frame
		at time.Time
	}
	queue := make(chan due, 1024)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		defer close(queue)
		r := bufio.NewReaderSize(from, 64<<10)
		for {
			f, err := readFrame(r)
			if err != nil {
				return
			}
			delay, _ := c.state()
			select {
			case queue <- due{f, time.Now().Add(delay)}:
			case <-ended:
				return
			}
		}
	}()
	var failed error
	for d := range queue {
		time.Sleep(time.Until(d.at))
		_, open := c.state()
		<-open
		if failed == nil { // else the rest is read only for the connection to end in order
			if failed = pass(d.frame, to); failed != nil {
				_ = from.SetReadDeadline(time.Now().Add(time.Second))
			}
		}
	}
	return failed
}

// request passes a frame of the client on.
func (c *passing) request(f frame, server net.Conn) error {
	t := c.sprung(f)
	if t != nil && t.when == before {
		t.spring()
		return errKilled
	}
	if t != nil && f.reply != "" {
		c.mu.Lock()
		c.trap, c.wait = t, f.reply
		c.mu.Unlock()
		t = nil
	}
	if _, err := server.Write(f.raw); err != nil {
		return err
	}
	if t != nil { // nothing answers: the connection's end in order is all there is to wait for
		t.spring()
		return errKilled
	}
	return nil
}

// response passes a frame of the server on.
func (c *passing) response(f frame, client net.Conn) error {
	c.mu.Lock()
	t := c.trap
	if t != nil && f.subject == c.wait {
		c.trap = nil
	} else {
		t = nil
	}
	c.mu.Unlock()
	if t != nil && t.when == replyLost {
		t.spring()
		return errKilled
	}
	_, err := client.Write(f.raw)
	if t != nil {
		t.spring()
		return errKilled
	}
	return err
}
