package defender

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// piped is a transport to an API in the same bubble of fake time; dialling takes delay.
func piped(t *testing.T, delay time.Duration, h http.HandlerFunc) func(*Config) {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: silent}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return func(cfg *Config) {
		cfg.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			near, far := net.Pipe()
			select {
			case l.conns <- far:
				return near, nil
			case <-l.closed:
				return nil, net.ErrClosed
			}
		}}
	}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

const nearby = "http://127.0.0.1:80"

func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int32
		c, b := dialTo(t, nearby, piped(t, 0, func(w http.ResponseWriter, r *http.Request) {
			posts.Add(1)
			answer(201, created)(w, r)
		}))
		stale := func(p Permit) {
			t.Helper()
			n := posts.Load()
			_, err := c.Unrestrict(t.Context(), p, machine, "why")
			expect(t, err, Stale, codeStale, false)
			if posts.Load() != n {
				t.Error("it was sent")
			}
		}
		stale(Permit{})

		p := must(c.Ready(t.Context(), "normal"))
		if _, err := c.Unrestrict(t.Context(), p, machine, "why"); err != nil {
			t.Fatalf("a fresh one: %v", err)
		}
		stale(p) // spent

		p = must(c.Ready(t.Context(), "normal"))
		b.mu.Lock()
		b.stale = true
		b.mu.Unlock()
		stale(p)
		_, err := c.Page(t.Context(), UseLookup, Query{}) // look-ups keep to it too
		expect(t, err, Stale, codeStale, false)
	})
}

// TestStaleAfterConnecting: the last look is just before the write, and the new connection is not lost by it.
func TestStaleAfterConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := dialTo(t, nearby, piped(t, time.Second, func(http.ResponseWriter, *http.Request) { t.Error("called") }))
		p := must(c.Ready(t.Context(), "normal"))
		_ = c.conns.takeIdle().Close()
		time.AfterFunc(500*time.Millisecond, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.stale = true
		})
		_, err := c.Unrestrict(t.Context(), p, machine, "why")
		expect(t, err, Stale, codeStale, false)
		if len(c.conns.idle) != 1 {
			t.Errorf("%d idle connections", len(c.conns.idle))
		}
	})
}

// TestSlowConnect: the grant is not spent on connecting, and what was dialled too slowly for one call is there for the next.
func TestSlowConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := dialTo(t, nearby, piped(t, 5*time.Second, answer(201, created)))
		start := time.Now()
		p := must(c.Ready(t.Context(), "normal"))
		if p.Granted().Sub(start) != 5*time.Second {
			t.Errorf("granted after %s", p.Granted().Sub(start))
		}
		other := must(c.Ready(t.Context(), "normal")) // both count on the one idle connection
		if _, err := c.Unrestrict(t.Context(), p, machine, "why"); err != nil {
			t.Fatal(err)
		}
		_ = c.conns.takeIdle().Close()
		_, err := c.Unrestrict(t.Context(), other, machine, "why")
		expect(t, err, Transient, codeTimeout, false)
		if time.Since(start) != 7*time.Second {
			t.Errorf("waited until %s", time.Since(start))
		}
		time.Sleep(4 * time.Second)
		again := time.Now()
		if _, err := post(t.Context(), c); err != nil || !time.Now().Equal(again) {
			t.Errorf("%v after %s", err, time.Since(again))
		}
		time.Sleep(idleFor) // not kept for ever
		if c.conns.takeIdle() != nil || len(b.uses) != 3 {
			t.Errorf("an idle connection is left; grants %v", b.uses)
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := dialTo(t, nearby, piped(t, time.Hour, answer(201, created)))
		start := time.Now()
		_, err := c.Ready(t.Context(), "normal")
		expect(t, err, Transient, codeTimeout, false)
		if time.Since(start) != dialTimeout || len(b.uses) != 0 {
			t.Errorf("after %s, grants %v", time.Since(start), b.uses)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Ready(ctx, "normal")
		if e := expect(t, err, Transient, codeTimeout, false); !errors.Is(e, context.DeadlineExceeded) {
			t.Error(e)
		}
	})
}

// TestTimeoutOfTheExchange runs from the write to the body's last byte.
func TestTimeoutOfTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := dialTo(t, nearby, piped(t, 0, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(201)
			for _, b := range []byte(created) { // some two minutes
				time.Sleep(300 * time.Millisecond)
				if _, err := w.Write([]byte{b}); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		}))
		start := time.Now()
		_, err := post(t.Context(), c)
		if e := expect(t, err, Ambiguous, codeUnreadable, true); e.StatusCode != 201 || time.Since(start) != 20*time.Second {
			t.Errorf("%v after %s", e, time.Since(start))
		}
		time.Sleep(time.Minute) // the handler's end
	})
}

// TestThrottled: every 429 closes the budget before the caller hears of it.
func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var header, message atomic.Value
		header.Store("")
		message.Store("")
		var status atomic.Int32
		status.Store(429)
		c, b := dialTo(t, nearby, piped(t, 0, func(w http.ResponseWriter, r *http.Request) {
			if v := header.Load().(string); v != "" {
				w.Header().Set("Retry-After", v)
			}
			answer(int(status.Load()), `{"error":{"code":"429","message":"`+message.Load().(string)+`"}}`)(w, r)
		}))
		hit := func(want time.Duration) {
			t.Helper()
			time.Sleep(time.Second)
			_, err := post(t.Context(), c)
			e := expect(t, err, Throttled, "429", true)
			if e.RetryAfter != want || b.closed[len(b.closed)-1] != want {
				t.Errorf("got %s, closed for %s, want %s", e.RetryAfter, b.closed[len(b.closed)-1], want)
			}
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			hit(want * time.Second)
		}
		header.Store("3600")
		hit(time.Hour)
		header.Store("0")
		message.Store("You can send requests again in 8 seconds.")
		hit(8 * time.Second)
		header.Store("")
		message.Store("")
		hit(time.Minute)
		status.Store(404)
		_, err := post(t.Context(), c)
		expect(t, err, NotFound, "429", true)
		status.Store(429)
		hit(time.Second) // from the beginning

		b.mu.Lock()
		n := len(b.closed)
		b.mu.Unlock()
		for range 4 { // the 429s of one burst are one step
			var wg sync.WaitGroup
			time.Sleep(time.Second)
			for range 8 {
				p := must(c.Ready(t.Context(), "normal"))
				wg.Go(func() { _, _ = c.Unrestrict(t.Context(), p, machine, "why") })
			}
			wg.Wait()
		}
		want := []time.Duration{}
		for _, step := range []time.Duration{2, 4, 8, 16} {
			for range 8 {
				want = append(want, step*time.Second)
			}
		}
		if diff := cmp.Diff(want, b.closed[n:]); diff != "" {
			t.Error(diff)
		}
	})
}

// TestThrottledCloses even when the caller has gone, and says so when the budget can't be closed.
func TestThrottledCloses(t *testing.T) {
	c, b := dialTo(t, serve(t, answer(429, "", "Retry-After", "7")).URL)
	p := must(c.Ready(t.Context(), "normal"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := &Error{Class: Throttled, RetryAfter: 7 * time.Second}
	if c.throttled(ctx, p, e); e.Err != nil || len(b.closed) != 1 {
		t.Errorf("%v, closed %v", e, b.closed)
	}
	b.fail = errors.New("no store")
	_, err := c.Unrestrict(t.Context(), p, machine, "why")
	if e := expect(t, err, Throttled, "http429", true); !errors.Is(e, b.fail) || e.RetryAfter != 7*time.Second {
		t.Errorf("%v", e)
	}
}
