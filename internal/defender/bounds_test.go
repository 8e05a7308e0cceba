package defender

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestActionBounds: what of an action goes into ledger, results and headers is bounded, each at its bound.
func TestActionBounds(t *testing.T) {
	with := func(name, value string) string { return `{"id":"a","` + name + `":` + quoted(value) + `}` }
	for name, c := range map[string]struct {
		body string
		ok   bool
		want func(MachineAction) bool
	}{
		"id":                     {with("id", strings.Repeat("a", 128)), true, func(a MachineAction) bool { return len(a.ID) == 128 }},
		"longer id":              {with("id", strings.Repeat("a", 129)), false, nil},
		"2 MB of id":             {with("id", strings.Repeat("a", 2<<20)), false, nil},
		"id with a line":         {with("id", "x\r\nNats-Rollup: all\r\n"), false, nil},
		"id with NUL":            {with("id", "x\x00"), false, nil},
		"id with a blank":        {with("id", "x y"), false, nil},
		"id beyond ASCII":        {with("id", "x\u202e"), false, nil},
		"status":                 {with("status", strings.Repeat("s", 64)), true, func(a MachineAction) bool { return len(a.Status) == 64 && !a.Final() }},
		"longer status":          {with("status", strings.Repeat("s", 65)), true, func(a MachineAction) bool { return len(a.Status) == 64 }},
		"status with a line":     {with("status", "Suc\nceeded\u202e"), true, func(a MachineAction) bool { return a.Status == "" }},
		"final and more":         {with("status", "Succeeded"+strings.Repeat(" ", 1<<20)), true, func(a MachineAction) bool { return !a.Final() }},
		"comment":                {with("requestorComment", strings.Repeat("c", maxComment+1)), true, func(a MachineAction) bool { return len(a.RequestorComment) == maxComment }},
		"machine and more":       {with("machineId", machine+strings.Repeat("0", 1<<20)), false, nil},
		"type and more":          {with("type", TypeUnrestrict+strings.Repeat("x", 1<<20)), false, nil},
		"year 10000":             {with("creationDateTimeUtc", "9999-12-31T23:59:59-14:00"), true, func(a MachineAction) bool { return a.CreationTime.IsZero() }},
		"year 0":                 {with("lastUpdateDateTimeUtc", "0000-01-01T00:00:00+14:00"), true, func(a MachineAction) bool { return a.LastUpdateTime.IsZero() }},
		"year 9999":              {with("creationDateTimeUtc", "9999-12-31T23:59:59Z"), true, func(a MachineAction) bool { return a.CreationTime.Year() == 9999 }},
		"as large as may be":     {with("x", strings.Repeat("x", 1000-len(with("x", "")))), true, func(a MachineAction) bool { return len(a.Raw) == 1000 && !a.Cut }},
		"larger":                 {with("x", strings.Repeat("x", 1001-len(with("x", "")))), true, func(a MachineAction) bool { return a.Raw == nil && a.Cut && a.ID == "a" }},
		"most that is read":      {with("x", strings.Repeat("x", maxAction-len(with("x", "")))), true, func(a MachineAction) bool { return a.Cut }},
		"more than that":         {with("x", strings.Repeat("x", maxAction+1-len(with("x", "")))), false, nil},
		"the token as its id":    {with("id", secretToken[:100]), false, nil},
		"the token as a status":  {with("status", secretToken[:60]), true, func(a MachineAction) bool { return a.Status == "" }},
		"the token as a comment": {with("requestorComment", "x"+secretToken), true, func(a MachineAction) bool { return repeats(a.RequestorComment, secretToken) == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := dialTo(t, serve(t, answer(201, c.body)).URL, func(cfg *Config) { cfg.MaxAction = 1000 })
			a, err := post(t.Context(), client)
			if !c.ok {
				if e := failed(t, err); e.Class != Ambiguous || len(e.Error()) > 300 {
					t.Fatal(e)
				}
				return
			}
			if err != nil || !c.want(a) {
				t.Fatalf("%v %.300s", err, fmt.Sprintf("%+v", a))
			}
			if _, err := json.Marshal([]time.Time{a.CreationTime, a.LastUpdateTime}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestErrorBounds: so is what of a refusal does.
func TestErrorBounds(t *testing.T) {
	envelope := func(code, message, target string) string {
		return fmt.Sprintf(`{"error":{"code":%s,"message":%s,"target":%s}}`, quoted(code), quoted(message), quoted(target))
	}
	long := strings.Repeat("words ", 1<<20)
	for name, c := range map[string]struct {
		status int
		body   string
		header []string
		class  Class
		code   string
	}{
		"at the bounds":        {400, envelope(strings.Repeat("a", maxCode), long[:maxMessage], strings.Repeat("t", maxID)), nil, Rejected, strings.Repeat("a", maxCode)},
		"a longer code":        {400, envelope(strings.Repeat("a", maxCode+1), "m", ""), nil, Rejected, "http400"},
		"a longer message":     {400, envelope("Some", long[:maxError/2], ""), nil, Rejected, "Some"},
		"a longer body":        {400, envelope("Some", long, ""), nil, System, codeNotDefender},
		"lines":                {400, envelope("Some\nDeadletter-Reason: x", "a\nb\x1b[2J\u202e", "t\nu"), nil, Rejected, "http400"},
		"a far date":           {429, envelope("429", "m", ""), []string{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"}, Throttled, "429"},
		"a long wait":          {429, envelope("429", "m", ""), []string{"Retry-After", strings.Repeat("9", 10000)}, Throttled, "429"},
		"a long wait in words": {429, envelope("429", "again in "+strings.Repeat("9", 10000)+" seconds", ""), nil, Throttled, "429"},
		"a status of its own":  {799, envelope("Some", "m", ""), nil, Ambiguous, "Some"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			client, b := dialTo(t, serve(t, answer(c.status, c.body, append(c.header, "Mise-Correlation-Id", strings.Repeat("m", maxID+1))...)).URL, func(cfg *Config) { cfg.Registerer = reg })
			_, err := post(t.Context(), client)
			e := expect(t, err, c.class, c.code, true)
			if len(e.Code) > maxCode || len(e.Message) > 4*maxMessage+3 || len(e.Target) > maxID || len(e.Exchange.CorrelationID) > maxID || e.RetryAfter < 0 {
				t.Errorf("%+v", e)
			}
			if text := e.Error() + e.Reason; strings.ContainsAny(text, "\n\x1b\u202e") {
				t.Errorf("%q", text)
			}
			for _, d := range b.closed {
				if _, err := json.Marshal(time.Now().Add(d)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestTokenBounds: and what of a token does.
func TestTokenBounds(t *testing.T) {
	largest := strings.Repeat("t", maxToken)
	for value, ok := range map[string]bool{largest: true, largest + "t": false} {
		if err := tokensOf(t, always(value)).Check(t.Context()); (err == nil) != ok {
			t.Errorf("%d bytes: %.200v", len(value), err)
		}
	}
	for _, end := range []time.Time{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxInt64, 0)} {
		tokens := tokensOf(t, &issuer{next: func(int, bool) (Token, error) { return Token{Value: "opaque-token", Expires: end}, nil }})
		if err := tokens.Check(t.Context()); err != nil || !tokens.expires().IsZero() {
			t.Errorf("%v: %s", err, tokens.expires())
		}
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprint("Role.", i)
	}
	many[0], many[1] = "turned\u202e", strings.Repeat("r", maxID+1)
	claims, err := tokensOf(t, always(jwt(map[string]any{"roles": many, "aud": "a\nb", "appid": "a\x1b", "tid": strings.Repeat("t", maxID+1), "exp": 9e11}))).Claims(t.Context())
	if err != nil || len(claims.Roles) != 98 || claims.Audience != nil || claims.AppID != "" || claims.TenantID != "" {
		t.Errorf("%v %d roles, %+v", err, len(claims.Roles), claims)
	}
}

// TestBombs: answers that swell without end don't fill the memory, however many come at once, and hold up no small one.
func TestBombs(t *testing.T) {
	var swell bytes.Buffer // a stream of zeros; what begins at again may follow any number of times
	z, again := gzip.NewWriter(&swell), 0
	for range 2 {
		again = swell.Len()
		_, _ = z.Write(make([]byte, 1<<20))
		_ = z.Flush()
	}
	var small atomic.Bool
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if small.Load() {
			answer(201, created)(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(map[bool]int{true: 201, false: 200}[r.Method == "POST"])
		for from := 0; r.Context().Err() == nil; from = again {
			_, _ = w.Write(swell.Bytes()[from:])
		}
	})
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // what is garbage is seen not to count
	c, _ := dialTo(t, srv.URL, func(cfg *Config) { cfg.Timeout = 5 * time.Minute })
	runtime.GC()
	before, peak := heap(), uint64(0)
	stop, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			default:
				peak = max(peak, heap())
				time.Sleep(time.Millisecond)
			}
		}
	}()
	var calls sync.WaitGroup
	for range 16 {
		calls.Go(func() {
			_, err := post(t.Context(), c)
			if e := failed(t, err); e.Class != Ambiguous || e.Code != codeUnreadable {
				t.Error(e)
			}
		})
	}
	calls.Go(func() {
		_, err := c.Page(t.Context(), UseFollow, Query{})
		if e := failed(t, err); e.Class != Ambiguous {
			t.Error(e)
		}
	})
	calls.Wait()
	close(stop)
	<-watched
	if used := int64(peak) - int64(before); used > 200<<20 {
		t.Errorf("%d MB", used>>20)
	} else {
		t.Logf("%d MB", used>>20)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// TestSmallAnswersWaitForNone: while a large one does not end, others are read.
func TestSmallAnswersWaitForNone(t *testing.T) {
	pad := strings.Repeat("x", maxError+1)
	release, reading := make(chan struct{}), make(chan struct{}, 1)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, machine) {
			answer(200, strings.Replace(created, `"why"`, `"`+pad[:maxError-2*len(created)]+`"`, 1))(w, r)
			return
		}
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"id":"a","x":"`+pad)
		_ = http.NewResponseController(w).Flush()
		select {
		case reading <- struct{}{}:
		default:
		}
		<-release
		_, _ = io.WriteString(w, `"}`)
	})
	c, _ := dialTo(t, srv.URL, func(cfg *Config) { cfg.Timeout = 5 * time.Minute })
	var calls sync.WaitGroup
	for range 2 {
		calls.Go(func() {
			if _, err := post(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	<-reading
	if a, err := c.Action(t.Context(), UseFollow, actionID); err != nil || len(a.Raw) < maxError/2 {
		t.Error(err)
	}
	close(release)
	calls.Wait()
}
