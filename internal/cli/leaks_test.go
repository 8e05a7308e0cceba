package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// vault are the secrets of one test, and everything that was put out while they were in use.
type vault struct {
	mu      sync.Mutex
	secrets map[string]string // what it is: its value
	outputs []output
}

type output struct {
	where, text string
	letter      bool // a dead letter, or a request: a signature may stand there
}

func (v *vault) keep(what, secret string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets[what] = secret
}

func (v *vault) put(o output) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.outputs = append(v.outputs, o)
}

// check is the proof: no secret, no part of a token, in no spelling, in anything that came out.
func (v *vault) check(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	shown := map[string]bool{}
	for what, secret := range v.secrets {
		parts := []string{secret}
		if strings.Count(secret, ".") == 2 {
			parts = append(parts, strings.Split(secret, ".")[1:]...)
		}
		for _, part := range parts {
			for how, form := range written(part) {
				for _, o := range v.outputs {
					if o.letter && what == "signature" || shown[what+o.where] {
						continue
					}
					if at := strings.Index(o.text, form); at >= 0 {
						shown[what+o.where] = true
						t.Errorf("%s shows the %s, %s: %q", o.where, what, how, o.text[max(at-120, 0):min(at+20, len(o.text))])
					}
				}
			}
		}
	}
}

// written are the ways in which whoever repeats a secret may write it.
func written(s string) map[string]string {
	inner := func(prefix string, e *base64.Encoding) string { // what of the base64 is the secret's alone
		text := e.EncodeToString([]byte(prefix + s + "xx"))
		return text[(len(prefix)*8+5)/6 : (len(prefix)+len(s))*8/6]
	}
	quoted, _ := json.Marshal(s)
	return map[string]string{
		"plain": s, "in a query": url.QueryEscape(s), "in a path": url.PathEscape(s), "in hex": hex.EncodeToString([]byte(s)), "in JSON": strings.Trim(string(quoted), `"`),
		"in base64": inner("", base64.RawStdEncoding), "in base64 behind one byte": inner("x", base64.RawStdEncoding), "in base64 behind two bytes": inner("xx", base64.RawStdEncoding),
		"in base64url": inner("", base64.RawURLEncoding), "in base64url behind one byte": inner("x", base64.RawURLEncoding), "in base64url behind two bytes": inner("xx", base64.RawURLEncoding),
	}
}

const echoHere = "ECHO-HERE"

// parrot is an API and authority that repeats, wherever a fault of the simulator says echoHere, all the secrets that the
// request bore in every spelling, and that behind JSON's escapes too.
type parrot struct {
	sim     *defendersim.Server
	vault   *vault
	mu      sync.Mutex
	echoed  map[string]int // by path's last element: answers that repeated a secret
	echoing bool           // else faults that take the connection apart, which nothing may stand before
}

func (p *parrot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var sent []string
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		p.vault.keep("token "+token[len(token)-6:], token)
		sent = append(sent, token, strings.Split(token, ".")[2])
	}
	if form, err := url.ParseQuery(string(body)); err == nil && strings.HasSuffix(r.URL.Path, "/token") {
		for _, name := range []string{"client_secret", "client_assertion"} {
			if v := form.Get(name); v != "" {
				sent = append(sent, v)
			}
		}
	}
	p.mu.Lock()
	echoing := p.echoing
	p.mu.Unlock()
	if !echoing {
		p.sim.ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, r)
	var all, escaped strings.Builder
	for _, s := range sent {
		for _, form := range written(s) {
			all.WriteString(form + " ")
		}
		all.WriteString("Bearer " + s + " ")
		for _, c := range s {
			fmt.Fprintf(&escaped, `\u%04x`, c)
		}
	}
	text := rec.Body.String()
	if strings.Contains(text, echoHere) && len(sent) > 0 {
		p.mu.Lock()
		p.echoed[filepath.Base(r.URL.Path)]++
		p.mu.Unlock()
	}
	quoted, _ := json.Marshal(all.String())
	text = strings.ReplaceAll(text, echoHere, strings.Trim(string(quoted), `"`)+escaped.String())
	for name, values := range rec.Header() {
		w.Header()[name] = []string{strings.ReplaceAll(values[0], echoHere, strings.TrimSpace(all.String()))}
	}
	w.Header().Del("Content-Length")
	w.WriteHeader(rec.Code)
	_, _ = io.WriteString(w, text)
}

// everyFault is one of each kind that the simulator has for a call, each for one time.
func everyFault() (faults []defendersim.Fault) {
	header := http.Header{"X-Echo": {echoHere}, "Location": {"https://127.0.0.1:1/" + echoHere}, "Www-Authenticate": {`Bearer error="` + echoHere + `"`}}
	for _, status := range []int{200, 201, 204, 301, 400, 401, 403, 404, 409, 413, 429, 500, 503} {
		faults = append(faults, defendersim.Fault{Status: status, Code: "Code" + echoHere, Message: "message " + echoHere, Header: header})
	}
	for _, status := range []int{200, 400, 403, 502} {
		faults = append(faults, defendersim.Fault{Status: status, Body: []byte("<html>" + echoHere + "</html>"), Header: header})
	}
	return append(faults,
		defendersim.Fault{Status: 400, Code: "DisabledFeature", Message: echoHere}, defendersim.Fault{Status: 403, Message: "missing application roles " + echoHere},
		defendersim.Fault{Status: 429, RetryAfter: time.Second, Message: echoHere}, defendersim.Fault{Status: 201, Body: []byte(`{"status":"` + echoHere + `","` + echoHere + `":1}`)},
		defendersim.Fault{Latency: 10 * time.Millisecond, Header: header}, defendersim.Fault{CarriedOut: true, Status: 500, Message: echoHere},
		defendersim.Fault{Cut: "before"}, defendersim.Fault{Cut: "headers"}, defendersim.Fault{Cut: "body"}, defendersim.Fault{Cut: "body", CarriedOut: true}, defendersim.Fault{Hang: true})
}

// TestNothingLeaks runs the real worker, as a process, at the debug level, through every fault of the simulator, against
// an API and a sign-in endpoint that repeat what they were sent. Then everything that came out is searched: the log, each
// stream and bucket of the broker, every page, and what the commands say.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	v := &vault{secrets: map[string]string{
		"client secret": "cl13nt/s3cret+of~the.app==", "NATS password": "n4ts-p4ssword-of-the-worker", "admin token": "adm1n-t0ken-of-the-worker",
		"assertion": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ3b3JrbG9hZC1pZCJ9.c2lnbmF0dXJlLW9mLXRoZS1mZWRlcmF0aW9u",
	}}
	dir := t.TempDir()
	seed := filepath.Join(dir, "ann.nk")
	public, err := writeSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(seed)
	if err != nil {
		t.Fatal(err)
	}
	v.keep("signer's seed", strings.TrimSpace(string(content)))
	p, env := haunted(t, v, dir, public)

	run := start(t, env, []string{"worker", "run"}, true)
	admin := ""
	run.until(t, func(line string) bool {
		v.put(output{where: "the log's beginning", text: line})
		var entry struct{ Msg, Addr string }
		_ = json.Unmarshal([]byte(line), &entry)
		if entry.Msg == "admin server listens" {
			admin = "http://" + entry.Addr
		}
		return entry.Msg == "taking requests"
	})
	js := jetStream(t, env)
	n := 0
	ask := func(faults []defendersim.Fault, ops ...string) {
		for _, f := range faults {
			for _, op := range ops {
				n++
				f.Op, f.Times = op, 1
				if op != "token" {
					f.Machine = MachineOf(n)
				} else {
					p.sim.RevokeTokens()
				}
				p.sim.Inject(f)
				comment := "released"
				if f.Latency > 0 {
					comment = echoHere // which the API then repeats in the action itself
				}
				publishSigned(t, js, v, seed, n, comment)
			}
		}
		waitForFinals(t, js, v, admin, n)
	}
	one := func(faults []defendersim.Fault, op string) { // each alone: several in a row lengthen the pause between probes
		for _, f := range faults {
			ask([]defendersim.Fault{f}, op)
		}
	}
	isBody := func(f defendersim.Fault) bool { return f.Cut == "" && !f.Hang }
	withBody, without := slices.Clone(everyFault()), everyFault()
	withBody = slices.DeleteFunc(withBody, func(f defendersim.Fault) bool { return !isBody(f) })
	without = slices.DeleteFunc(without, isBody)
	p.echo(true)
	one(withBody, "unrestrict")
	one(withBody[4:12], "list")
	one(withBody[4:7], "token")
	p.echo(false)
	one(without, "unrestrict")

	for _, words := range []string{"status --json", "why r1", "results --follow=false --json", "deadletter list --json", "check", "schema request", "--help"} {
		v.put(output{where: "worker " + words, text: says(t, env, words)})
	}
	v.put(output{where: "worker deadletter show", text: says(t, env, "deadletter show r1"), letter: true})
	p.echo(true)
	for _, more := range [][]string{
		{"DEFENDER_AUTH=workload-identity"},
		{"NATS_URL=" + strings.Replace(lastOf(env, "NATS_URL"), "n4ts", "wr0ng-n4ts", 1)},
		{"NATS_URL=nats://worker:n4ts-p4ssword-of-the-worker@127.0.0.1:1"},
		{"NATS_URL=nats://worker:n4ts-p4ssword-of-the-worker@127.0.0.1:99999/x"},
		{"WORKER_TRUSTED_SIGNERS=ann=" + strings.TrimSpace(string(content))},
		{"DEFENDER_API_URL=https://user:cl13nt/s3cret+of~the.app==@127.0.0.1/"},
	} {
		p.sim.Inject(defendersim.Fault{Op: "token", Times: 1, Status: 400, Message: echoHere, Header: http.Header{"X-Echo": {echoHere}}})
		v.put(output{where: "worker check with " + more[0][:12], text: says(t, append(slices.Clone(env), more...), "check")})
	}
	lookAtPages(t, v, admin)
	if err := run.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	logged := <-run.rest
	_ = run.cmd.Wait()
	v.put(output{where: "the log", text: logged})
	everyStream(t, js, v)

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.echoed["unrestrictCodeExecution"] < len(withBody)/2 || p.echoed["token"] < 3 || p.echoed["machineactions"] < 1 || !strings.Contains(logged, `"level":"debug"`) {
		t.Errorf("the API repeated too little for a proof: %v", p.echoed)
	}
	v.check(t)
}

func (p *parrot) echo(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.echoing = on
}

// haunted is the world that the worker runs in: the parrot, a broker that asks for a password, and the environment.
func haunted(t *testing.T, v *vault, dir, signer string) (*parrot, []string) {
	t.Helper()
	p := &parrot{vault: v, echoed: map[string]int{}, sim: defendersim.New(defendersim.Config{
		Limits: []defendersim.Limit{}, AllowUnknownMachines: true, Lifecycle: defendersim.Lifecycle{Pending: -1, InProgress: -1},
	})}
	api := httptest.NewUnstartedServer(p)
	api.Config.ErrorLog = log.New(io.Discard, "", 0)
	api.StartTLS()
	t.Cleanup(func() { p.sim.Close(); api.Close() })
	ca, assertion := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "assertion")
	err := errors.Join(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}), 0o600),
		os.WriteFile(assertion, []byte(v.secrets["assertion"]), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: filepath.Join(dir, "nats"),
		Username: "worker", Password: v.secrets["NATS password"],
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker takes no connections")
	}
	return p, terminal(dir, "NATS_URL="+strings.Replace(s.ClientURL(), "nats://", "nats://worker:"+v.secrets["NATS password"]+"@", 1),
		"SSL_CERT_FILE="+ca, "AZURE_AUTHORITY_HOST="+api.URL+"/", "DEFENDER_DISABLE_INSTANCE_DISCOVERY=true", "DEFENDER_API_URL="+api.URL,
		"DEFENDER_AUTH=client-secret", "AZURE_TENANT_ID=7f3a9c52-1d84-4b6e-9a07-c25e81d4f630", "AZURE_CLIENT_ID=2f48b784-5da5-4e61-9957-012d2630f1e4",
		"AZURE_CLIENT_SECRET="+v.secrets["client secret"], "AZURE_FEDERATED_TOKEN_FILE="+assertion, "WORKER_ADMIN_TOKEN="+v.secrets["admin token"],
		"WORKER_TRUSTED_SIGNERS=ann="+signer, "LOG_LEVEL=debug", "LOG_FORMAT=json", "WORKER_RATE_PER_MINUTE=0", "WORKER_RATE_PER_HOUR=0",
		"WORKER_RECONCILE_DELAY=50ms", "DEFENDER_TIMEOUT=1s", "WORKER_GUARD_AFTER=0", "WORKER_BACKOFF_MAX=2s")
}

func lastOf(env []string, name string) (value string) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

func jetStream(t *testing.T, env []string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(lastOf(env, "NATS_URL"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func publishSigned(t *testing.T, js jetstream.JetStream, v *vault, seedFile string, n int, comment string) {
	t.Helper()
	seed, err := os.ReadFile(seedFile)
	if err != nil {
		t.Fatal(err)
	}
	data := fmt.Appendf(nil, `{"machineId":%q,"comment":%q,"id":"r%d","expiresAt":%q}`, MachineOf(n), comment, n, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	signer, signature, err := message.Sign(seed, "remediation.unrestrict", data)
	if err != nil {
		t.Fatal(err)
	}
	v.keep("signature", signature)
	msg := &nats.Msg{Subject: "remediation.unrestrict", Data: data, Header: nats.Header{message.HeaderSigner: {signer}, message.HeaderSignature: {signature}}}
	if _, err := js.PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
}

// waitForFinals waits until so many requests have ended, and looks at every page meanwhile.
func waitForFinals(t *testing.T, js jetstream.JetStream, v *vault, admin string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		lookAtPages(t, v, admin)
		finals := 0
		for _, o := range streamed(t, js, "REMEDIATION_RESULTS") {
			if strings.Contains(o.text, `"final":true`) {
				finals++
			}
		}
		if finals >= n {
			return
		}
		if !service.Pause(ctx, time.Second) {
			t.Fatalf("%d of %d requests ended", finals, n)
		}
	}
}

// lookAtPages reads every page of the admin server, a profile with everybody's stack among them.
func lookAtPages(t *testing.T, v *vault, admin string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	v.mu.Lock()
	token := v.secrets["admin token"]
	v.mu.Unlock()
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/status", "/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline", "/nothing"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("", token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusUnauthorized {
			t.Errorf("%s was not shown", path)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		v.put(output{where: path, text: fmt.Sprint(resp.Header, string(body))})
	}
}

func streamed(t *testing.T, js jetstream.JetStream, name string) (out []output) {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for seq := max(s.CachedInfo().State.FirstSeq, 1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, output{where: fmt.Sprintf("%s %d", name, seq), text: fmt.Sprint(m.Subject, m.Header, string(m.Data)), letter: name == "REMEDIATION" || name == "REMEDIATION_DEADLETTER"})
	}
	return out
}

func everyStream(t *testing.T, js jetstream.JetStream, v *vault) {
	t.Helper()
	names := 0
	for name := range js.StreamNames(t.Context()).Name() {
		names++
		for _, o := range streamed(t, js, name) {
			v.put(o)
		}
	}
	if names < 5 {
		t.Errorf("%d streams", names)
	}
}

// says runs the program and returns all that it says, whatever its exit status.
func says(t *testing.T, env []string, words string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "worker", strings.Fields(words)...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && !exit.Exited() {
		t.Errorf("worker %s: %v", words, err)
	}
	return string(out)
}
