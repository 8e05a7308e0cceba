package demo

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/intake"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// overHTTP is a `worker intake` for the demo's worker, and the receiver of its client's results.
type overHTTP struct {
	url, token string
	tokenFile  string
	secret     []byte      // of the callback
	posted     chan string // what came to the receiver, a line for each final result
	client     http.Client
}

// startIntake runs an intake with one client, and the receiver that this client's results are posted to. done gets the error that
// ended the intake.
func startIntake(ctx context.Context, env *session.Env, stay bool, dir string, w *service.Service) (o *overHTTP, done chan error, stop func(), err error) {
	o = &overHTTP{
		token: rand.Text(), tokenFile: filepath.Join(dir, "intake-token"), secret: []byte(rand.Text()),
		posted: make(chan string), client: http.Client{Transport: &http.Transport{}},
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	receiver := &http.Server{Handler: http.HandlerFunc(o.receive), ReadHeaderTimeout: 10 * time.Second}
	received := make(chan struct{})
	go func() { defer close(received); _ = receiver.Serve(l) }()
	stopReceiver := func() { _ = receiver.Close(); <-received }
	server, err := o.newIntake(ctx, env, stay, dir, w, "http://"+l.Addr().String())
	if err != nil {
		stopReceiver()
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done = make(chan error, 1)
	ended := make(chan struct{})
	go func() { defer close(ended); done <- server.Run(ctx) }()
	return o, done, func() { cancel(); <-ended; stopReceiver() }, nil
}

// newIntake makes the intake, and the files that it reads.
func (o *overHTTP) newIntake(ctx context.Context, env *session.Env, stay bool, dir string, w *service.Service, receiver string) (*intake.Server, error) {
	addr := "127.0.0.1:0"
	if stay {
		addr = freeOr(ctx, env.Settings.Intake.Addr)
	}
	digest := sha256.Sum256([]byte(o.token))
	secretFile, clientsFile := filepath.Join(dir, "callback-secret"), filepath.Join(dir, "clients.yaml")
	clients := fmt.Sprintf(`clients:
  - name: demo
    lanes: [urgent, normal, bulk]
    token_sha256: [%s]
    callbacks:
      - {name: receiver, url: %q, secret_file: %q, final_only: true}
`, hex.EncodeToString(digest[:]), receiver, secretFile)
	settings, err := config.SettingsFrom(map[string]string{
		"WORKER_EMBEDDED_ADDR": strings.TrimPrefix(w.Broker.URL(), "nats://"), "WORKER_DATA_DIR": w.Settings.DataDir,
		"WORKER_INTAKE_ADDR": addr, "WORKER_INTAKE_CLIENTS_FILE": clientsFile,
	})
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		o.tokenFile: o.token, clientsFile: clients, secretFile: "whsec_" + base64.StdEncoding.EncodeToString(o.secret),
	} {
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	log, _ := service.NewLogger(config.Log{Level: "error", Format: env.Settings.Log.Format}, env.Stderr)
	server, err := intake.New(settings, log)
	if err != nil {
		return nil, err
	}
	at, err := server.Listen()
	if err == nil {
		o.url = "http://" + at.String()
	}
	return server, err
}

// receive takes a result that the intake posts, if its signature is the client's.
func (o *overHTTP) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	var result message.Result
	if err != nil || !o.signed(r.Header, body) || json.Unmarshal(body, &result) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	select {
	case o.posted <- result.RequestID + " " + result.Outcome + ", the signature is verified":
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done():
	}
}

// signed verifies a signature of Standard Webhooks, as any receiver does: of the id, the time and the exact body.
func (o *overHTTP) signed(h http.Header, body []byte) bool {
	at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute { // otherwise a captured one could be replayed
		return false
	}
	mac := hmac.New(sha256.New, o.secret)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("Webhook-Id"), at, body)
	return hmac.Equal([]byte(h.Get("Webhook-Signature")), []byte("v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))))
}

// show requests one release, follows it at its Location, and waits for its callback. ok: its outcome is as expected.
func (o *overHTTP) show(ctx context.Context, out io.Writer) (ok bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoLimit, errors.New("the request over HTTP did not get its result in time"))
	defer cancel()
	defer o.client.CloseIdleConnections()
	for ready := false; !ready; service.Pause(ctx, 10*time.Millisecond) { // it connects to the broker after it listens
		answer, err := o.ask(ctx, http.MethodGet, o.url+"/readyz", "")
		if err != nil {
			return false, err
		}
		ready = answer.code == http.StatusOK
	}
	fmt.Fprintf(out, "\nOne more request, over HTTP from a client of worker intake at %s:\n\n", o.url)
	answer, err := o.ask(ctx, http.MethodPost, o.url+"/v1/requests", curlBody("demo-http", 9))
	for err == nil {
		fmt.Fprintf(out, "  %-4s %-25s %d %s%s\n", answer.method, answer.path, answer.code, answer.Status, where(answer.header))
		if answer.code != http.StatusAccepted {
			break
		}
		seconds, _ := strconv.Atoi(answer.header.Get("Retry-After"))
		service.Pause(ctx, time.Duration(seconds)*time.Second)
		answer, err = o.ask(ctx, http.MethodGet, answer.header.Get("Location"), "")
	}
	if err != nil {
		return false, err
	}
	select {
	case line := <-o.posted:
		fmt.Fprintf(out, "  POST to its callback           %s\n", line)
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	return answer.Outcome == message.Succeeded, nil
}

func where(h http.Header) string {
	if h.Get("Location") == "" {
		return ""
	}
	return ", Location: " + h.Get("Location") + ", Retry-After: " + h.Get("Retry-After")
}

// curlBody is a request's body, as it is typed after curl -d.
func curlBody(id string, machine int) string {
	return fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"Cleaned and validated"}`, id, demoMachine(machine))
}

// answer is what the demo reads of an HTTP answer.
type answer struct {
	method, path string
	code         int
	header       http.Header

	Status, Outcome string
}

func (o *overHTTP) ask(ctx context.Context, method, url, body string) (a answer, err error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	r.Header.Set("Authorization", "Bearer "+o.token)
	r.Header.Set("Content-Type", "application/json")
	got, err := o.client.Do(r)
	if err != nil {
		return a, cmp.Or(context.Cause(ctx), err)
	}
	defer got.Body.Close()
	a = answer{method: method, path: r.URL.Path, code: got.StatusCode, header: got.Header}
	if err := json.NewDecoder(io.LimitReader(got.Body, 1<<20)).Decode(&a); err != nil {
		return a, fmt.Errorf("%s %s is answered %d: %w", method, url, a.code, err)
	}
	return a, nil
}

// printStay prints what to paste for asking over HTTP by hand. The token is in its file alone.
func (o *overHTTP) printStay(out io.Writer) {
	fmt.Fprintf(out, `
Over HTTP, as a client that was made for this demo:

export INTAKE=%s TOKEN="$(cat '%s')"
curl -sS -i -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '%s' $INTAKE/v1/requests
curl -sS -i -H "Authorization: Bearer $TOKEN" $INTAKE/v1/requests/curl-1

What is posted to the client's callback is printed here:

`, o.url, o.tokenFile, curlBody("curl-1", 10))
}

// stay prints what is posted to the receiver, until ctx ends, or the worker or the intake ends by itself.
func (o *overHTTP) stay(ctx context.Context, out io.Writer, worker, server chan error) error {
	for ctx.Err() == nil {
		var err error
		select {
		case line := <-o.posted:
			fmt.Fprintln(out, "  "+line)
			continue
		case err = <-worker:
		case err = <-server:
		case <-ctx.Done():
		}
		if ctx.Err() == nil {
			return fmt.Errorf("it ended by itself: %w", err)
		}
	}
	return nil
}
