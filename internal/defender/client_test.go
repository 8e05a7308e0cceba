package defender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestUnrestrictRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, body = r, must(io.ReadAll(r.Body))
		answer(201, "\xef\xbb\xbf \n"+created+"\n")(w, r)
	})
	c, b := dialTo(t, srv.URL+"/", func(cfg *Config) { cfg.UserAgent = "worker/1" })
	p, err := c.Ready(t.Context(), "normal")
	if err != nil || time.Since(p.Granted()) > time.Minute {
		t.Fatalf("granted %s: %v", p.Granted(), err)
	}
	a, err := c.Unrestrict(t.Context(), p, strings.ToUpper(machine), "a <b> & \"c\"\u2028é")
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.RequestURI != "/api/machines/"+machine+"/unrestrictCodeExecution" || got.ProtoMajor != 1 {
		t.Errorf("%s %s %s", got.Method, got.RequestURI, got.Proto)
	}
	if want := `{"Comment":"a <b> & \"c\"\u2028é"}`; string(body) != want {
		t.Errorf("body %s, want %s", body, want)
	}
	want := http.Header{
		"Authorization": {"Bearer " + secretToken}, "Content-Type": {"application/json"}, "Accept": {"application/json"},
		"User-Agent": {"worker/1"}, "Accept-Encoding": {"gzip"}, "Content-Length": {fmt.Sprint(len(body))},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Error(diff)
	}
	if string(a.Raw) != created || a.ID != actionID {
		t.Errorf("action %+v", a)
	}
	if diff := cmp.Diff([]string{"normal"}, b.uses); diff != "" {
		t.Error(diff)
	}
}

func TestMachineIDIsChecked(t *testing.T) {
	c, _ := dialTo(t, serve(t, func(http.ResponseWriter, *http.Request) { t.Error("called") }).URL)
	for _, id := range []string{"", "abc", machine + "0", machine[:39] + "g", "../" + machine[3:], machine[:39] + "/", machine[:39] + "?", machine[:38] + "é"} {
		_, err := c.Unrestrict(t.Context(), Permit{}, id, "why")
		expect(t, err, Rejected, codeMachineID, false)
	}
	for _, id := range []string{"", ".", ".."} {
		_, err := c.Action(t.Context(), UseFollow, id)
		expect(t, err, Rejected, codeActionID, false)
	}
}

func TestLookUps(t *testing.T) {
	var paths []string
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.RequestURI)
		if r.ContentLength != 0 || r.Header.Get("Content-Type") != "" || r.Header.Get("Authorization") != "Bearer "+secretToken {
			t.Errorf("%d bytes, %v", r.ContentLength, r.Header)
		}
		switch r.URL.Path {
		case "/api/machineactions":
			answer(200, `{"value":[`+created+`,{"id":"b"}],"@odata.nextLink":"http://`+r.Host+`/next"}`)(w, r)
		case "/api/machineactions/" + actionID:
			answer(200, created)(w, r)
		case "/api/machineactions/a?/b":
			answer(200, `{"id":"A?/b"}`)(w, r)
		default:
			answer(200, `{"id":"other"}`)(w, r)
		}
	})
	c, b := dialTo(t, srv.URL)
	page, err := c.Page(t.Context(), UseFollow, Query{Top: 2})
	if err != nil || len(page.Actions) != 2 || !page.More || string(page.Actions[0].Raw) != created {
		t.Fatalf("%+v: %v", page, err)
	}
	list, err := c.Page(t.Context(), UseLookup, Query{MachineID: machine})
	if err != nil || len(list.Actions) != 2 {
		t.Fatalf("%+v: %v", list, err)
	}
	for _, id := range []string{actionID, "a?/b"} {
		if a, err := c.Action(t.Context(), UseFollow, id); err != nil || !strings.EqualFold(a.ID, id) {
			t.Fatalf("%+v: %v", a, err)
		}
	}
	_, err = c.Action(t.Context(), UseFollow, "mine")
	if e := expect(t, err, Ambiguous, codeNoAction, true); e.Op != "get" {
		t.Errorf("%+v", e)
	}
	if diff := cmp.Diff([]string{"follow", "lookup", "follow", "follow", "follow"}, b.uses); diff != "" {
		t.Error(diff)
	}
	want := []string{
		"GET /api/machineactions?$orderby=creationDateTimeUtc%20asc&$top=2",
		"GET /api/machineactions?$filter=machineId%20eq%20%27" + machine + "%27&$orderby=creationDateTimeUtc%20asc",
		"GET /api/machineactions/" + actionID, "GET /api/machineactions/a%3F%2Fb", "GET /api/machineactions/mine",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
}

// TestConnectionsAreKept: many calls, one connection; HTTP/2 is not spoken even if the server would.
func TestConnectionsAreKept(t *testing.T) {
	var peers sync.Map
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peers.Store(r.RemoteAddr, true)
		if r.ProtoMajor != 1 || r.TLS == nil || r.TLS.Version < 0x0303 {
			t.Errorf("%s, TLS %x", r.Proto, r.TLS.Version)
		}
		answer(404, `{"error":{"code":"NotFound"}}`)(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c, _ := dialTo(t, srv.URL, func(cfg *Config) { cfg.Transport = srv.Client().Transport.(*http.Transport) })
	for range 5 {
		_, err := post(t.Context(), c)
		expect(t, err, NotFound, "NotFound", true)
	}
	n := 0
	peers.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var status atomic.Int32
	status.Store(201)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { answer(int(status.Load()), created)(w, r) })
	c, _ := dialTo(t, srv.URL, func(cfg *Config) { cfg.Registerer = reg })
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	status.Store(503)
	_, err := c.Page(t.Context(), UseLookup, Query{})
	expect(t, err, Ambiguous, "http503", true)
	srv.Close()
	for c.conns.idle[0].Err() == nil { // until its end is noticed
		runtime.Gosched()
	}
	_, err = c.Page(t.Context(), UseLookup, Query{})
	expect(t, err, Transient, codeRefused, false)
	want := `
# HELP unrestrict_api_calls_total Calls to the Defender API by operation and HTTP status, or a short code where there was no answer.
# TYPE unrestrict_api_calls_total counter
unrestrict_api_calls_total{code="201",operation="unrestrict"} 1
unrestrict_api_calls_total{code="503",operation="list"} 1
unrestrict_api_calls_total{code="connectionRefused",operation="list"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "unrestrict_api_calls_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(c.metrics.duration); n != 2 {
		t.Errorf("durations of %d operations", n)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	if _, err := New(Config{BaseURL: srv.URL, Registerer: reg}, nil, nil); err == nil {
		t.Error("registered twice")
	}
}

func TestClock(t *testing.T) {
	var date atomic.Value
	var status atomic.Int32
	c, _ := dialTo(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		if v := date.Load().(string); v != "" {
			w.Header().Set("Date", v)
		}
		answer(int(status.Load()), `{"value":[]}`)(w, r)
	}).URL)
	look := func(code int, header string) (time.Duration, bool) {
		status.Store(int32(code))
		date.Store(header)
		_, _ = c.Page(t.Context(), UseLookup, Query{})
		earliest, latest, measured := c.Clock()
		if measured && latest.Sub(earliest) < time.Second {
			t.Errorf("the bounds are %v apart, though Date has a resolution of a second", latest.Sub(earliest))
		}
		return time.Until(earliest).Round(time.Minute), measured
	}
	if _, measured := look(200, ""); measured {
		t.Error("measured without a Date")
	}
	before := c.Answered()
	if before.IsZero() {
		t.Error("not answered")
	}
	for _, skew := range []time.Duration{2 * time.Hour, -3 * time.Hour} {
		if got, measured := look(200, time.Now().Add(skew).UTC().Format(http.TimeFormat)); got != skew || !measured {
			t.Errorf("got %s, %t; want %s", got, measured, skew)
		}
	}
	last := c.Answered()
	if got, _ := look(502, time.Now().UTC().Format(http.TimeFormat)); got != -3*time.Hour || c.Answered() != last {
		t.Errorf("a proxy's answer moved the clock to %s", got)
	}
}

// TestBudgetError: the budget's own error comes through, and nothing is sent.
func TestBudgetError(t *testing.T) {
	c, b := dialTo(t, serve(t, func(http.ResponseWriter, *http.Request) { t.Error("called") }).URL)
	b.fail = errors.New("closed until noon")
	_, err := c.Ready(t.Context(), "normal")
	_, err2 := c.Page(t.Context(), UseLookup, Query{})
	_, err3 := c.Action(t.Context(), UseFollow, actionID)
	for _, err := range []error{err, err2, err3} {
		var e *Error
		if !errors.Is(err, b.fail) || errors.As(err, &e) {
			t.Errorf("got %v", err)
		}
	}
}

// TestProxy: a proxy is used for the API, and its password shows nowhere.
func TestProxy(t *testing.T) {
	var asked atomic.Value
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host + " " + r.Header.Get("Proxy-Authorization"))
		answer(403, "no")(w, r)
	})
	at := must(url.Parse(strings.Replace(proxy.URL, "//", "//user:hidden-word@", 1)))
	c, _ := dialTo(t, "https://api.example", func(cfg *Config) { cfg.Transport = &http.Transport{Proxy: http.ProxyURL(at)} })
	_, err := c.Ready(t.Context(), "normal")
	e := expect(t, err, Transient, codeConnect, false)
	if asked.Load() != "CONNECT api.example:443 Basic dXNlcjpoaWRkZW4td29yZA==" || strings.Contains(e.Error(), "hidden-word") {
		t.Errorf("%v: %v", asked.Load(), e)
	}
	broken := func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "http://user:hidden-word@x y"`)
	}
	c, _ = dialTo(t, "https://api.example", func(cfg *Config) { cfg.Transport = &http.Transport{Proxy: broken} })
	if _, err = c.Ready(t.Context(), "normal"); err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), "hidden-word") {
		t.Error(err)
	}
	proxy.Close()
	c, _ = dialTo(t, "https://api.example", func(cfg *Config) { cfg.Transport = &http.Transport{Proxy: http.ProxyURL(at)} })
	_, err = c.Ready(t.Context(), "normal")
	expect(t, err, Transient, codeProxy, false)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCancelledBefore(t *testing.T) {
	c, _ := dialTo(t, serve(t, func(http.ResponseWriter, *http.Request) { t.Error("called") }).URL)
	p := must(c.Ready(t.Context(), "normal"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Unrestrict(ctx, p, machine, "why")
	if e := expect(t, err, Transient, codeCancelled, false); !errors.Is(e, context.Canceled) {
		t.Errorf("%v", e)
	}
}
