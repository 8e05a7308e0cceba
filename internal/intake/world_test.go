package intake_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/intake"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// world is a broker with its streams, a wire to it, and an intake at its end. Workers come when they are started.
type world struct {
	t      testing.TB
	dir    string
	broker *broker.Broker
	wire   *wire
	sim    *defendersim.Server
	doc    *document
	tls    *tls.Config // of a client; nil: the intake has no TLS
}

const token, otherToken = "the-token-of-soar", "the-token-of-desk"

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// soar may do everything, desk the usual.
func twoClients() string {
	return "clients:\n- {name: soar, lanes: [urgent, normal, bulk], rate: 100000, token_sha256: [" + digest(token) + "]}\n" +
		"- {name: desk, token_sha256: [" + digest(otherToken) + "]}\n"
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), doc: openDocument(t)}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	var err error
	if w.broker, err = broker.Open(ctx, broker.Config{DataDir: filepath.Join(w.dir, "data"), EmbeddedAddr: "127.0.0.1:0", Provision: true, SyncInterval: true}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.broker.Close(context.Background()) })
	if err := w.broker.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	w.wire = newWire(t, strings.TrimPrefix(w.broker.URL(), "nats://"))
	return w
}

// settings are those of a program of this world; NATS goes over the wire.
func (w *world) settings(more map[string]string) config.Settings {
	w.t.Helper()
	secret, err := os.ReadFile(filepath.Join(w.dir, "data", "token"))
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]string{
		"NATS_URL": "nats://" + w.wire.addr(), "NATS_TOKEN": strings.TrimSpace(string(secret)), "WORKER_INTAKE_ADDR": "127.0.0.1:0", "WORKER_ADMIN_ADDR": "127.0.0.1:0",
		"WORKER_RATE_PER_MINUTE": "0", "WORKER_RATE_PER_HOUR": "0", "WORKER_POLL_INTERVAL": "100ms", "WORKER_DATA_DIR": w.dir,
	}
	maps.Copy(all, more)
	s, err := config.SettingsFrom(all)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// file writes a file of this world.
func (w *world) file(name, text string) string {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// door is an intake and a client of it.
type door struct {
	*world
	url   string
	token string
	stop  func()
}

// open starts an intake, and waits until it is ready.
func (w *world) open(more map[string]string) *door {
	w.t.Helper()
	if more["WORKER_INTAKE_CLIENTS_FILE"] == "" {
		more = maps.Clone(more)
		if more == nil {
			more = map[string]string{}
		}
		more["WORKER_INTAKE_CLIENTS_FILE"] = w.file("clients.yaml", twoClients())
	}
	s, err := intake.New(w.settings(more), zap.NewNop())
	if err != nil {
		w.t.Fatal(err)
	}
	addr, err := s.Listen()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	d := &door{world: w, url: "http://" + addr.String(), token: token}
	if w.tls != nil {
		d.url = "https://" + addr.String()
	}
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the intake ended: %v", err)
		}
	})
	w.t.Cleanup(d.stop)
	d.eventually("readiness", func() bool { return d.ask("GET", "/readyz", "").status == 200 })
	return d
}

// desk is the same intake, asked by the other client.
func (d *door) desk() *door {
	other := *d
	other.token = otherToken
	return &other
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s has not come", what)
		}
	}
}

// answer is one, held against the document.
type answer struct {
	status int
	header http.Header
	body   string

	ID, Status, Outcome, Code, Field string
	Duplicate                        bool
	Queue                            *service.Place
	Result                           json.RawMessage
	Error                            *message.Failure
}

// send sends a request with the client's token.
func (d *door) send(ctx context.Context, method, path, body string, headers []string) (*http.Request, *http.Response) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if d.token != "" {
		r.Header.Set("Authorization", "Bearer "+d.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: d.tls}}
	got, err := client.Do(r)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r, got
}

func (d *door) ask(method, path, body string, headers ...string) answer {
	d.t.Helper()
	if body != "" {
		headers = append([]string{"Content-Type", "application/json"}, headers...)
	}
	r, got := d.send(context.WithoutCancel(d.t.Context()), method, path, body, headers)
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	d.doc.fits(d.t, r, got, text)
	a := answer{status: got.StatusCode, header: got.Header, body: string(text)}
	if strings.Contains(path, "/v1/") && method != "HEAD" {
		var said struct{ Status json.RawMessage }
		_ = json.Unmarshal(text, &said)
		_ = json.Unmarshal(text, &a)
		a.Status = strings.Trim(string(said.Status), `"`)
	}
	return a
}

func (d *door) post(body string, headers ...string) answer {
	d.t.Helper()
	return d.ask("POST", "/v1/requests", body, headers...)
}

// stored are the messages of the request stream.
func (w *world) stored() (all []broker.Message) {
	w.t.Helper()
	for m, err := range w.broker.Queue(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// work starts a worker, whose actions end at once, and waits until it takes requests.
func (w *world) work() {
	w.t.Helper()
	w.workWith(defendersim.Lifecycle{Pending: -1, InProgress: -1})
}

func (w *world) workWith(actions defendersim.Lifecycle) {
	w.t.Helper()
	w.sim = defendersim.New(defendersim.Config{
		Limits: []defendersim.Limit{}, AllowUnknownMachines: true, Lifecycle: actions,
	})
	api := httptest.NewServer(w.sim)
	all := map[string]string{"DEFENDER_API_URL": api.URL, "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": w.file("api-token", w.sim.IssueToken(time.Hour))}
	s, err := service.New(w.settings(all), os.LookupEnv, zap.NewNop(), zap.NewAtomicLevel())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	go func() { _ = s.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-s.Ended; w.sim.Close(); api.Close() })
	w.eventually("a worker", func() bool { stop, _ := health.Stopping(s.Conditions()); return len(stop) == 0 })
}

func machine(n int) string { return fmt.Sprintf("%040x", n) }

func request(id string, n int) string {
	return fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"c"}`, id, machine(n))
}

// wire is a proxy to the broker. It can drop the broker's replies, or cut all connections.
type wire struct {
	t      testing.TB
	server string
	ln     net.Listener

	mu    sync.Mutex
	mute  bool   // drops everything from the broker
	until string // becomes mute when this is sent; "": never
	away  bool   // no connection holds
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newWire(t testing.TB, server string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, server: server, ln: ln, conns: map[net.Conn]bool{}}
	w.wg.Go(w.accept)
	t.Cleanup(func() { ln.Close(); w.set(false, true); w.wg.Wait() })
	return w
}

func (w *wire) addr() string { return w.ln.Addr().String() }

// muteFrom drops the broker's replies from when this is sent.
func (w *wire) muteFrom(sent string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = sent
}

// set drops the broker's replies, or cuts all connections.
func (w *wire) set(mute, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute, w.away = mute, away
	if away {
		for c := range w.conns {
			c.Close()
		}
	}
}

func (w *wire) accept() {
	for {
		client, err := w.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.server)
		w.mu.Lock()
		if err != nil || w.away {
			client.Close()
			if server != nil {
				server.Close()
			}
			w.mu.Unlock()
			continue
		}
		w.conns[client], w.conns[server] = true, true
		w.mu.Unlock()
		w.wg.Go(func() { w.pump(server, client, false) })
		w.wg.Go(func() { w.pump(client, server, true) })
	}
}

func (w *wire) pump(to, from net.Conn, replies bool) {
	defer func() {
		to.Close()
		from.Close()
		w.mu.Lock()
		delete(w.conns, from)
		w.mu.Unlock()
	}()
	for buffer := make([]byte, 64<<10); ; {
		n, err := from.Read(buffer)
		w.mu.Lock()
		if w.until != "" && !replies && bytes.Contains(buffer[:n], []byte(w.until)) {
			w.mute, w.until = true, ""
		}
		lost := replies && w.mute
		w.mu.Unlock()
		if err != nil {
			return
		}
		if lost {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
