package defendersim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a listener whose connections are net.Pipes: HTTP inside a synctest bubble.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipe) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// overPipe serves s and returns a client for it; call within a bubble.
func overPipe(t *testing.T, s *Server) *http.Client {
	p := &pipe{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: s}
	ended := make(chan struct{})
	go func() { _ = server.Serve(p); close(ended) }()
	transport := &http.Transport{DialContext: p.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
		_ = server.Close()
		<-ended
	})
	return &http.Client{Transport: transport}
}

// send asks over a connection for the release of machine 1; body and error as the client meets them.
func send(t *testing.T, c *http.Client, base, token string, timeout time.Duration) (status int, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/machines/"+machineID(1)+"/unrestrictCodeExecution", strings.NewReader(`{"Comment":"c"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// TestBothForms: each way to spoil an answer, refused and carried out, over
// plain HTTP/1.1 and over TLS with HTTP/2.
func TestBothForms(t *testing.T) {
	for name, c := range map[string]struct {
		fault  Fault
		status int // that the client sees; 0: none
		broken bool
	}{
		"5xx":          {Fault{Status: 503}, 503, false},
		"unreadable":   {Fault{Body: []byte("<html>gateway</html>")}, 201, false},
		"cut before":   {Fault{Cut: "before"}, 0, true},
		"cut headers":  {Fault{Cut: "headers"}, 0, true},
		"cut body":     {Fault{Cut: "body"}, 201, true},
		"cut 503 body": {Fault{Cut: "body", Status: 503}, 503, true},
	} {
		for _, carriedOut := range []bool{false, true} {
			for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(name+" "+protocol+map[bool]string{true: " carried out", false: " refused"}[carriedOut], func(t *testing.T) {
					s := New(anyMachine())
					server := httptest.NewUnstartedServer(s)
					if server.EnableHTTP2 = protocol == "HTTP/2.0"; server.EnableHTTP2 {
						server.StartTLS()
					} else {
						server.Start()
					}
					defer server.Close()
					f := c.fault
					f.Op, f.Times, f.CarriedOut = "unrestrict", 1, carriedOut
					s.Inject(f)
					token := s.IssueToken(time.Hour)
					status, body, err := send(t, server.Client(), server.URL, token, time.Minute)
					want := c.status
					if c.fault.Cut == "headers" && protocol == "HTTP/2.0" {
						want = 201 // there the headers come as one
					}
					if status != want || (err != nil) != c.broken {
						t.Errorf("client sees %d %q, %v", status, body, err)
					}
					if done := len(s.Actions()) == 1; done != carriedOut {
						t.Errorf("%d actions", len(s.Actions()))
					}
					logged := s.Calls()[0].Status
					if c.fault.Cut == "before" && logged != 0 || c.fault.Cut != "before" && logged == 0 {
						t.Errorf("logged as %d", logged)
					}
					status, _, err = send(t, server.Client(), server.URL, token, time.Minute)
					if want := map[bool]int{false: 201, true: 400}[carriedOut]; status != want || err != nil {
						t.Errorf("the next call: %d, %v", status, err)
					}
				})
			}
		}
	}
}

func TestHangAndLatency(t *testing.T) {
	for name, c := range map[string]struct {
		fault   Fault
		base    time.Duration
		actions int
	}{
		"hang":                    {Fault{Hang: true}, 0, 0},
		"hang, carried out":       {Fault{Hang: true, CarriedOut: true}, 0, 1},
		"too late":                {Fault{Latency: time.Minute}, 0, 0},
		"too late, carried out":   {Fault{Latency: time.Minute, CarriedOut: true}, 0, 1},
		"slow API":                {Fault{}, time.Minute, 0},
		"slow API and slow fault": {Fault{Latency: 20 * time.Second}, 20 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{AllowUnknownMachines: true, Latency: c.base})
				client := overPipe(t, s)
				s.Inject(c.fault)
				_, _, err := send(t, client, "http://sim", s.IssueToken(time.Hour), 30*time.Second)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				time.Sleep(time.Hour)
				if n := len(s.Actions()); n != c.actions {
					t.Errorf("%d actions, want %d", n, c.actions)
				}
				if got := s.Calls()[0].Status; got != 0 {
					t.Errorf("logged as %d", got)
				}
			})
		})
	}
}

func TestLatencyIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{AllowUnknownMachines: true, Latency: time.Second})
		client := overPipe(t, s)
		s.Inject(Fault{Latency: 2 * time.Second, Header: http.Header{"X-Cache": {"miss", "edge"}}, RetryAfter: 1500 * time.Millisecond})
		start := time.Now()
		status, _, err := send(t, client, "http://sim", s.IssueToken(time.Hour), time.Minute)
		if took := time.Since(start); status != 201 || err != nil || took != 3*time.Second {
			t.Errorf("%d, %v after %v", status, err, took)
		}
		if created := s.Actions()[0].Created; !created.Equal(start.Add(3 * time.Second)) {
			t.Errorf("created at %v", created)
		}
	})
}

func TestCloseEndsWhatHangs(t *testing.T) {
	s := New(anyMachine())
	server := httptest.NewServer(s)
	s.Inject(Fault{Hang: true})
	ended := make(chan error)
	go func() {
		_, _, err := send(t, server.Client(), server.URL, s.IssueToken(time.Hour), time.Hour)
		ended <- err
	}()
	for len(s.Calls()) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Close()
	s.Close()
	if err := <-ended; err == nil {
		t.Error("answered")
	}
	server.Close() // waits for its requests
}
