package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Times of a callback's posts (docs/intake.md).
const (
	callWithin  = 20 * time.Second
	callAgain   = 5 * time.Second // the first time; it doubles
	callAtMost  = time.Hour
	callGiveUp  = 3 * 24 * time.Hour
	lookForNews = time.Second
)

// callBack posts the clients' results to their targets, each target on its own, until ctx ends. It starts all of them
// anew when the clients file or the connection changes.
func (s *Server) callBack(ctx context.Context) {
	var conn *broker.Broker
	version := -1
	stop := func() {}
	defer func() { stop() }()
	tick := time.NewTicker(lookForNews)
	defer tick.Stop()
	for {
		list, now, changed := s.clients.All()
		if c := s.link.conn.Load(); c != conn || now != version {
			stop()
			stop, conn, version = func() {}, c, now
			if c != nil {
				stop = s.callAll(ctx, c, list, changed)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// callAll starts all callbacks; the function that it returns ends them and waits.
func (s *Server) callAll(ctx context.Context, conn *broker.Broker, list []*clients.Client, changed time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, c := range list {
		for _, callback := range c.Callbacks {
			running.Go(func() {
				ctx, end := context.WithCancel(ctx)
				defer end()
				s.metrics.calls.WithLabelValues(c.Name, callback.Name, "givenUp") // so that the first one is an increase
				t := &target{s: s, client: c, callback: callback, mine: s.owns(c), end: end}
				defer s.stuck.Delete(t)
				conn.ConsumeResults(ctx, broker.ResultConsumer{
					Name:        "intake-" + ledger.Digest(s.rules.Stream+"\n"+c.Name+"\n"+callback.Name, 10),
					Description: "results of " + c.Name + " for its callback " + callback.Name,
					Since:       changed, Handle: t.handle, Watch: t.watch,
				})
			})
		}
	}
	return func() { cancel(); running.Wait() }
}

// target is one callback.
type target struct {
	s        *Server
	client   *clients.Client
	callback *clients.Callback
	mine     func(message.Result) bool
	end      func()
}

// watch records whether results arrive for this target. Two goroutines wait for results, and may call it at the same
// time.
func (t *target) watch(waiting uint64, err error) {
	t.s.metrics.waiting.WithLabelValues(t.client.Name, t.callback.Name).Set(float64(waiting))
	about := []zap.Field{zap.String("client", t.client.Name), zap.String("callback", t.callback.Name)}
	if err == nil {
		if _, was := t.s.stuck.LoadAndDelete(t); was {
			t.s.log.Info("results come for a callback again", about...)
		}
		return
	}
	if _, known := t.s.stuck.LoadOrStore(t, true); !known {
		t.s.log.Error("a callback gets no results", append(about, zap.Error(err))...)
	}
}

// handle posts a result, if it is for this target.
func (t *target) handle(ctx context.Context, m broker.Message, times int) (again time.Duration, done bool) {
	var r message.Result
	if json.Unmarshal(m.Data, &r) != nil || !t.mine(r) || !t.callback.Wants(r) {
		return 0, true
	}
	about := []zap.Field{zap.String("client", t.client.Name), zap.String("callback", t.callback.Name), zap.Uint64("sequence", m.Sequence), zap.Int("attempt", times)}
	if time.Since(m.Time) > callGiveUp {
		t.s.metrics.called(t.client.Name, t.callback.Name, "givenUp")
		t.s.log.Error("a result could not be delivered for three days, and is given up", about...)
		return 0, true
	}
	status, err := t.post(ctx, m)
	if ctx.Err() != nil {
		return 0, false // this target ends; the result is redelivered, to another replica or to this one later
	}
	code := "error"
	if err == nil {
		code = strconv.Itoa(status)
	}
	t.s.metrics.called(t.client.Name, t.callback.Name, code)
	if err == nil && status/100 == 2 {
		return 0, true
	}
	t.s.log.Warn("a result was not taken by its callback", append(about, zap.String("code", code))...)
	if status == http.StatusGone {
		t.s.log.Error("a callback says that it is gone: it is not called until the clients file changes", about...)
		t.end()
	}
	return delayAfter(times), false
}

// delayAfter is the delay before the next try, after so many tries.
func delayAfter(times int) time.Duration {
	return min(callAgain<<min(max(times, 1)-1, 12), callAtMost)
}

// post sends a result as a CloudEvent in binary mode. Each try is signed anew, under the same id.
func (t *target) post(ctx context.Context, m broker.Message) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.callback.URL, bytes.NewReader(m.Data))
	if err != nil {
		return 0, err
	}
	for name, values := range m.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "ce-") || lower == "traceparent" || lower == "tracestate" {
			r.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	now, id := time.Now(), "msg_"+ledger.Digest(m.Header.Get("Nats-Msg-Id"), 16)
	signature, err := t.callback.Sign(id, now, m.Data)
	if err != nil {
		return 0, err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Webhook-Id": id, "Webhook-Timestamp": strconv.FormatInt(now.Unix(), 10), "Webhook-Signature": signature,
	} {
		r.Header.Set(name, value)
	}
	answer, err := t.s.caller.Do(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	return answer.StatusCode, answer.Body.Close()
}

// newCaller follows no redirect: a target must not lead the post to another address.
func newCaller() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: callWithin},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
