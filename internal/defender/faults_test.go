package defender

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// calls are the three operations, each with the one grant that it takes.
var calls = map[string]func(context.Context, *Client) error{
	opUnrestrict: func(ctx context.Context, c *Client) error {
		_, err := post(ctx, c)
		return err
	},
	opList: func(ctx context.Context, c *Client) error {
		_, err := c.Page(ctx, UseLookup, Query{})
		return err
	},
	opGet: func(ctx context.Context, c *Client) error {
		_, err := c.Action(ctx, UseFollow, actionID)
		return err
	},
}

// whole reads one request to its end, as an API does that carries it out.
func whole(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err == nil
}

// TestReplyLost: the request was read to its end, and what came back is no answer. It is never sent a second time,
// on a connection used before neither, where net/http would repeat a GET.
func TestReplyLost(t *testing.T) {
	ok := "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n" + `{"error":{"code":"NotFound"}}`
	for name, c := range map[string]struct {
		reply string
		code  string
		reset bool
	}{
		"closed":            {code: codeCut},
		"reset":             {code: codeCut, reset: true},
		"in the status":     {reply: "HTTP/1.1 2", code: codeUnreadable},
		"in the header":     {reply: "HTTP/1.1 201 Created\r\nContent-", code: codeUnreadable},
		"not HTTP":          {reply: "SSH-2.0-OpenSSH_9.2\r\n\r\n", code: codeUnreadable},
		"in the body":       {reply: "HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n" + `{"id":"a"}`, code: codeUnreadable},
		"in a chunk":        {reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\n" + `{"id":"a"}`, code: codeUnreadable},
		"in a refusal":      {reply: "HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n" + `{"error":{`, code: codeUnreadable},
		"in the compressed": {reply: "HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde", code: codeUnreadable},
		"in a 503":          {reply: "HTTP/1.1 503 Busy\r\nContent-Length: 500\r\n\r\n" + `{"error":{`, code: "http503"},
	} {
		for op, call := range calls {
			for _, reused := range []bool{false, true} {
				t.Run(name+" "+op, func(t *testing.T) {
					var requests atomic.Int32
					url := listen(t, func(conn net.Conn) {
						r := bufio.NewReader(conn)
						for whole(r) {
							n := requests.Add(1)
							if reused && n == 1 {
								_, _ = io.WriteString(conn, ok)
								continue
							}
							if c.reset {
								_ = conn.(*net.TCPConn).SetLinger(0)
							}
							_, _ = io.WriteString(conn, c.reply)
							return
						}
					})
					client, b := dialTo(t, url)
					want := int32(1)
					if reused {
						want = 2
						expect(t, call(t.Context(), client), NotFound, "NotFound", true)
					}
					if e := expect(t, call(t.Context(), client), Ambiguous, c.code, true); e.Op != op {
						t.Errorf("op %s", e.Op)
					}
					if got := requests.Load(); got != want || len(b.uses) != int(want) {
						t.Errorf("%d requests and %d grants, want %d", got, len(b.uses), want)
					}
				})
			}
		}
	}
}

// TestRefused: nothing was written, in Ready and (the connection gone in between) in the call itself.
func TestRefused(t *testing.T) {
	for op, call := range calls {
		srv := serve(t, answer(404, `{"error":{"code":"NotFound"}}`))
		c, b := dialTo(t, srv.URL)
		p := must(c.Ready(t.Context(), "normal"))
		srv.Close()
		for c.conns.idle[0].Err() == nil { // until its end is noticed
			runtime.Gosched()
		}
		_, err := c.Unrestrict(t.Context(), p, machine, "why")
		expect(t, err, Transient, codeRefused, false)
		if e := expect(t, call(t.Context(), c), Transient, codeRefused, false); e.Op != op || len(b.uses) != 1 {
			t.Errorf("op %s, grants %v", e.Op, b.uses)
		}
	}
}

func TestConnectFaults(t *testing.T) {
	dialing := func(err error) func(*Config) {
		return func(cfg *Config) {
			cfg.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }}
		}
	}
	selfSigned := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called") }))
	selfSigned.Config.ErrorLog = silent
	selfSigned.StartTLS()
	t.Cleanup(selfSigned.Close)
	hangUp := listen(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) })
	plain := listen(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	for name, c := range map[string]struct {
		url  string
		set  func(*Config)
		code string
	}{
		"no such name":      {"https://api.example", dialing(&net.DNSError{Err: "no such host", Name: "api.example", IsNotFound: true}), codeDNS},
		"dial time-out":     {"https://api.example", dialing(&net.OpError{Op: "dial", Err: context.DeadlineExceeded}), codeTimeout},
		"no route":          {"https://api.example", dialing(errors.New("no route to host")), codeConnect},
		"unknown authority": {selfSigned.URL, func(*Config) {}, codeTLS},
		"hung up in TLS":    {strings.Replace(hangUp, "http:", "https:", 1), func(*Config) {}, codeTLS},
		"plain HTTP":        {strings.Replace(plain, "http:", "https:", 1), func(*Config) {}, codeTLS},
	} {
		t.Run(name, func(t *testing.T) {
			client, b := dialTo(t, c.url, c.set)
			for op, call := range calls {
				if e := expect(t, call(t.Context(), client), Transient, c.code, false); e.Op != op || len(b.uses) > 0 {
					t.Errorf("op %s, grants %v", e.Op, b.uses)
				}
			}
		})
	}
}

// TestWriteFails: a connection on which no byte could be written is no call.
func TestWriteFails(t *testing.T) {
	for name, limit := range map[string]int{"at once": 0, "half way": 40} {
		c, _ := dialTo(t, "http://127.0.0.1:1", func(cfg *Config) {
			cfg.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				t.Cleanup(func() { _ = far.Close() })
				return &leaky{Conn: near, left: limit}, nil
			}}
		})
		_, err := post(t.Context(), c)
		if limit == 0 {
			expect(t, err, Transient, codeConnect, false)
			continue
		}
		if e := expect(t, err, Ambiguous, codeCut, true); e.Err == nil {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// leaky takes so many bytes and then fails.
type leaky struct {
	net.Conn
	left int
}

func (l *leaky) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	if n < len(b) {
		return n, errors.New("broken pipe")
	}
	return n, nil
}

// TestTimeout covers the whole exchange: no answer, no header's end, no body's end.
func TestTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		reply string
		code  string
	}{
		"no answer":         {"", codeTimeout},
		"no end of header":  {"HTTP/1.1 201 Created\r\n", codeTimeout},
		"no end of body":    {"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n" + `{"id":"a",`, codeUnreadable},
		"no body":           {"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n", codeUnreadable},
		"no end of a 400":   {"HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n" + `{"error":`, codeUnreadable},
		"no end of chunks":  {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", codeUnreadable},
		"no end of refusal": {"HTTP/1.1 500 Oops\r\nContent-Length: 500\r\n\r\n", "http500"},
	} {
		t.Run(name, func(t *testing.T) {
			url := listen(t, func(conn net.Conn) {
				if r := bufio.NewReader(conn); whole(r) {
					_, _ = io.WriteString(conn, c.reply)
					_, _ = r.ReadByte() // until the client goes away
				}
			})
			client, _ := dialTo(t, url, func(cfg *Config) { cfg.Timeout = 50 * time.Millisecond })
			_, err := post(t.Context(), client)
			expect(t, err, Ambiguous, c.code, true)
		})
	}
}

// TestCancelledAfter: a call that its caller gives up after it was written may have taken place.
func TestCancelledAfter(t *testing.T) {
	for name, reply := range map[string]string{"no answer": "", "no body": "HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n"} {
		ctx, cancel := context.WithCancel(t.Context())
		url := listen(t, func(conn net.Conn) {
			if r := bufio.NewReader(conn); whole(r) {
				_, _ = io.WriteString(conn, reply)
				cancel()
				_, _ = r.ReadByte()
			}
		})
		client, _ := dialTo(t, url)
		_, err := post(ctx, client)
		if e := failed(t, err); e.Class != Ambiguous || !e.Sent {
			t.Errorf("%s: %v", name, e)
		}
	}
}
