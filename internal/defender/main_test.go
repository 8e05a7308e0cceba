package defender

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	machine  = "0123456789abcdef0123456789abcdef01234567"
	actionID = "ed74c544-91d4-414d-8805-5c26e028ef7e"
	created  = `{"@odata.context":"https://host/api/$metadata#MachineActions/$entity","id":"` + actionID + `","type":"UnrestrictCodeExecution",` +
		`"title":null,"requestor":"app","requestorComment":"why","status":"Pending","machineId":"` + machine + `","computerDnsName":null,` +
		`"creationDateTimeUtc":"2024-10-21T11:27:58.1447302Z","lastUpdateDateTimeUtc":"2024-10-21T11:27:58.1447307Z","errorHResult":0,` +
		`"x-new":{"big":123456789012345678901234567890,"text":"\u00e9<&>"}}`
)

// openBudget grants everything at once and remembers what it was asked.
type openBudget struct {
	mu     sync.Mutex
	uses   []string
	closed []time.Duration
	stale  bool
	fail   error
}

func (b *openBudget) Take(ctx context.Context, use string) (time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uses = append(b.uses, use)
	if b.fail != nil {
		return time.Time{}, b.fail
	}
	return time.Now(), ctx.Err()
}

func (b *openBudget) Fresh(time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.stale
}

func (b *openBudget) Close(ctx context.Context, d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = append(b.closed, d)
	return errors.Join(ctx.Err(), b.fail)
}

// issuer returns what next makes, and counts the requests.
type issuer struct {
	mu    sync.Mutex
	asked []bool // fresh, for each request
	next  func(n int, fresh bool) (Token, error)
}

func (i *issuer) Token(ctx context.Context, scope string, fresh bool) (Token, error) {
	i.mu.Lock()
	i.asked = append(i.asked, fresh)
	n := len(i.asked)
	i.mu.Unlock()
	if scope != "scope/.default" {
		return Token{}, fmt.Errorf("asked for %q", scope)
	}
	return i.next(n, fresh)
}

func (i *issuer) Changed() bool { return false }

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// secretToken is the bearer of most tests; it must turn up nowhere but in the Authorization header.
var secretToken = jwt(map[string]any{"aud": "api", "exp": 4102444800, "appid": "app-1", "tid": "tenant-1", "roles": []string{"Machine.RestrictExecution"}})

func jwt(claims map[string]any) string {
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"typ":"JWT","alg":"RS256"}`)) + "." + enc.EncodeToString(text) + "." + enc.EncodeToString([]byte("a signature that is a secret as well"))
}

func always(value string) *issuer {
	return &issuer{next: func(int, bool) (Token, error) { return Token{Value: value}, nil }}
}

// numbered hands out token-1, token-2, ...
func numbered() *issuer {
	return &issuer{next: func(n int, _ bool) (Token, error) { return Token{Value: fmt.Sprintf("opaque-token-%d", n)}, nil }}
}

func tokensOf(t *testing.T, source CredentialSource) *Tokens {
	tokens := NewTokens(source, "scope/.default")
	t.Cleanup(tokens.Close)
	return tokens
}

var silent = log.New(io.Discard, "", 0)

// serve starts an API on loopback.
func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = silent
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// dialTo makes a client with an open budget and a token that never ends, unless set otherwise.
func dialTo(t *testing.T, url string, set ...func(*Config)) (*Client, *openBudget) {
	t.Helper()
	b := &openBudget{}
	return clientOf(t, url, tokensOf(t, always(secretToken)), b, set...), b
}

func clientOf(t *testing.T, url string, tokens *Tokens, b Budget, set ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{BaseURL: url, UserAgent: "worker/1", Timeout: 20 * time.Second, StartLimit: 2 * time.Second}
	for _, f := range set {
		f(&cfg)
	}
	c, err := New(cfg, tokens, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// post is Ready and Unrestrict in one.
func post(ctx context.Context, c *Client) (MachineAction, error) {
	p, err := c.Ready(ctx, "normal")
	if err != nil {
		return MachineAction{}, err
	}
	return c.Unrestrict(ctx, p, machine, "why")
}

// failed is the *Error in err; it also sees to it that no text of it holds the token.
func failed(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("expected an *Error, got %v", err)
	}
	noSecret(t, e, secretToken)
	return e
}

// noSecret searches every text that an error can show for the secrets and their parts.
func noSecret(t *testing.T, err error, secrets ...string) {
	t.Helper()
	shown := []string{fmt.Sprintf("%v %+v %#v", err, err, err)}
	for e := err; e != nil; e = errors.Unwrap(e) {
		shown = append(shown, e.Error())
		if own, ok := errors.AsType[*Error](e); ok {
			shown = append(shown, own.Code, own.Message, own.Target, own.Reason)
		}
	}
	text := strings.Join(shown, "\n")
	for _, s := range secrets {
		if piece := repeats(text, s); piece != "" {
			t.Fatalf("a secret shows in the error: %q in %s", piece, text)
		}
	}
}

// expect compares what a caller decides by.
func expect(t *testing.T, err error, class Class, code string, sent bool) *Error {
	t.Helper()
	e := failed(t, err)
	if e.Class != class || e.Code != code || e.Sent != sent {
		t.Fatalf("got %s, code %s, sent %t; want %s, code %s, sent %t: %v", e.Class, e.Code, e.Sent, class, code, sent, e)
	}
	return e
}

// listen is a raw TCP server that hands each connection to serve.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}
