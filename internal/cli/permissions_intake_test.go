package cli

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

const intakeToken = "the-token-of-soar"

// door is a `worker intake` that runs, and its client.
type door struct {
	t    *testing.T
	addr string
}

// startIntake starts `worker intake`, and waits until it is ready for all that its clients file says.
func startIntake(t *testing.T, env []string) (*door, *process) {
	t.Helper()
	p := start(t, env, []string{"worker", "intake"}, true)
	d := &door{t: t}
	p.until(t, func(line string) bool {
		var said struct{ Msg, Addr string }
		_ = json.Unmarshal([]byte(line), &said)
		d.addr = said.Addr
		return said.Msg == "the intake listens"
	})
	return d, p
}

func (d *door) ask(method, path, body string) (status int, text string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+d.addr+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+intakeToken)
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(path, "/v1/batches") {
		r.Header.Set("Content-Type", "text/csv")
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	if path == "/v1/results?since=1h" { // which does not end by itself
		line := make([]byte, 512)
		n, _ := io.ReadAtLeast(answer.Body, line, 1)
		return answer.StatusCode, string(line[:n])
	}
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer.StatusCode, string(all)
}

// until asks until the answer has this in it.
func (d *door) until(path, part string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 3*time.Minute)
	defer cancel()
	for {
		_, text := d.ask("GET", path, "")
		if strings.Contains(text, part) {
			return
		}
		if !service.Pause(ctx, 50*time.Millisecond) {
			d.t.Fatalf("%s: no %s in %s", path, part, text)
		}
	}
}

// calledBack is a clients file with a callback, and what is posted to it.
func calledBack(t *testing.T) (file string, posted chan message.Result) {
	t.Helper()
	posted = make(chan message.Result, 64)
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var result message.Result
		if err := json.NewDecoder(r.Body).Decode(&result); err != nil {
			t.Errorf("callback: %v", err)
		}
		posted <- result
	}))
	t.Cleanup(target.Close)
	sum := sha256.Sum256([]byte(intakeToken))
	secret := WriteTestFile(t, "hook.secret", "whsec_"+base64.StdEncoding.EncodeToString([]byte("a-secret-of-twenty-four-")))
	return WriteTestFile(t, "clients.yaml", fmt.Sprintf(`clients:
- name: soar
  lanes: [urgent, normal, bulk]
  token_sha256: [%s]
  callbacks: [{name: siem, url: %q, secret_file: %q, final_only: true}]
`, hex.EncodeToString(sum[:]), target.URL, secret)), posted
}

// takesOverHTTP has the intake do all that it does, as its role: first as the one who makes the consumer of a callback.
func (g *guarded) takesOverHTTP(t *testing.T) {
	t.Helper()
	file, posted := calledBack(t)

	// Without its consumer the callback is said to get nothing; the rest works.
	d, p := startIntake(t, g.as(t, "intake", "WORKER_PROVISION=false", "WORKER_INTAKE_CLIENTS_FILE="+file))
	d.until("/readyz", `"code":"callbacks"`)
	p.stop(t)
	d, p = startIntake(t, g.as(t, "intake-provisioner", "WORKER_INTAKE_CLIENTS_FILE="+file))
	d.until("/metrics", `unrestrict_intake_callback_waiting{client="soar",name="siem"} 0`)
	p.stop(t)

	d, p = startIntake(t, g.as(t, "intake", "WORKER_PROVISION=false", "WORKER_INTAKE_CLIENTS_FILE="+file))
	d.until("/readyz", `"ready":true,"reasons":[],"details":[]`)
	request := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"over HTTP"}`, id, permissionMachine)
	}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/v1/requests", request("http-1"), 202},
		{"POST", "/v1/requests?lane=urgent", request("http-2"), 202},
		{"GET", "/v1/requests/none", "", 404},
		{"POST", "/v1/batches/http-rows", "machineId,comment\n" + permissionMachine + ",c\n", 202},
		{"GET", "/v1/batches/http-rows", "", 200},
		{"GET", "/v1/results?since=1h", "", 200},
	} {
		if status, text := d.ask(c.method, c.path, c.body); status != c.want {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, text)
		}
	}
	for _, path := range []string{"/v1/requests/http-1", "/v1/requests/http-2", "/v1/requests/http-rows:2"} {
		d.until(path, `"outcome":"succeeded"`)
	}
	d.until("/v1/batches/http-rows", `"succeeded":1`)
	succeeds(t, g.as(t, "operator"), "worker", "pause", "--reason", "so that one can be cancelled")
	if status, text := d.ask("POST", "/v1/requests", request("http-3")); status != 202 {
		t.Errorf("while it is paused: %d %s", status, text)
	}
	d.until("/v1/requests/http-3", `"unavailable":"paused"`)
	for _, path := range []string{"/v1/requests/http-3", "/v1/batches/http-rows"} {
		if status, text := d.ask("DELETE", path, ""); status != 202 {
			t.Errorf("DELETE %s: %d %s", path, status, text)
		}
	}
	d.until("/v1/requests/http-3", `"outcome":"cancelled"`)
	succeeds(t, g.as(t, "operator"), "worker", "resume", "--reason", "done")
	want := map[string]bool{"http-1": true, "http-2": true, "http-3": true, "http-rows:2": true}
	for len(want) > 0 {
		select {
		case r := <-posted:
			delete(want, r.RequestID)
		case <-time.After(time.Minute):
			t.Fatalf("not posted to the callback: %v", want)
		}
	}
	p.stop(t)
}
