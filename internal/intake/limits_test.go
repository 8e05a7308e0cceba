package intake_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestTwoBodiesAtOnce: a batch that comes while two are being read is not read, and is taken once they are done.
func TestTwoBodiesAtOnce(t *testing.T) {
	d := newWorld(t).open(nil)
	client := http.Client{Transport: &http.Transport{ExpectContinueTimeout: 1 << 40}} // the body is sent once the intake reads it
	defer client.CloseIdleConnections()
	var ends []*io.PipeWriter
	answered := make(chan int, 2)
	for _, name := range []string{"a", "b"} {
		body, end := io.Pipe()
		r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, d.url+"/v1/batches/"+name, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"text/csv"}, "Expect": {"100-continue"}}
		go func() {
			answer, err := client.Do(r)
			if err != nil {
				t.Error(err)
				answered <- 0
				return
			}
			answer.Body.Close()
			answered <- answer.StatusCode
		}()
		if _, err := io.WriteString(end, "machineId,comment\n"); err != nil { // it has a place
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if a := d.postRows("c", csvRows(1, 2), "text/csv"); a.status != 503 || a.Code != "notQueued" || a.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", a.status, a.body)
	}
	if a := d.post(request("one", 1)); a.status != 202 {
		t.Errorf("a request meanwhile: %d %s", a.status, a.body)
	}
	for _, end := range ends {
		_, _ = io.WriteString(end, machine(1)+",c\n")
		end.Close()
	}
	for range ends {
		if status := <-answered; status != 202 {
			t.Errorf("one of the two: %d", status)
		}
	}
	if a := d.postRows("c", csvRows(1, 2), "text/csv"); a.status != 202 {
		t.Errorf("the third again: %d %s", a.status, a.body)
	}
}

// TestRates: what a client uses up is its own, and is told from what it may still read.
func TestRates(t *testing.T) {
	w := newWorld(t)
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": w.file("slow.yaml", "clients:\n- {name: soar, rate: 2, token_sha256: ["+digest(token)+"]}\n- {name: desk, rate: 2, token_sha256: ["+digest(otherToken)+"]}\n")})
	for n := 1; n <= 2; n++ {
		if a := d.post(request("a", n)); a.status != 202 && a.Code != "idConflict" {
			t.Errorf("%d of 2: %d %s", n, a.status, a.body)
		}
	}
	if a := d.post(request("b", 3)); a.status != 429 || a.Code != "tooMany" || a.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", a.status, a.body)
	}
	if a := d.ask("DELETE", "/v1/requests/a", ""); a.status != 429 {
		t.Errorf("DELETE: %d %s", a.status, a.body)
	}
	if a := d.ask("GET", "/v1/requests/a", ""); a.status != 202 {
		t.Errorf("GET: %d %s", a.status, a.body)
	}
	if a := d.desk().post(request("b", 3)); a.status != 202 || len(d.stored()) != 2 {
		t.Errorf("another client: %d %s", a.status, a.body)
	}
}

// TestTokensAreRotated without a restart: the new one is taken, then the old one is not.
func TestTokensAreRotated(t *testing.T) {
	w := newWorld(t)
	clients := func(tokens ...string) string {
		return w.file("rotated.yaml", "clients:\n- {name: soar, token_sha256: ["+strings.Join(tokens, ", ")+"]}\n")
	}
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": clients(digest(token))})
	if a := d.desk().ask("GET", "/v1/requests/a", ""); a.status != 401 || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("before: %d %s", a.status, a.body)
	}
	clients(digest(token), digest(otherToken))
	d.eventually("that the new token is taken", func() bool { return d.desk().ask("GET", "/v1/requests/a", "").status == 404 })
	if a := d.ask("GET", "/v1/requests/a", ""); a.status != 404 {
		t.Errorf("the old one beside it: %d %s", a.status, a.body)
	}
	clients(digest(otherToken))
	d.eventually("that the old token is not", func() bool { return d.ask("GET", "/v1/requests/a", "").status == 401 })
}

// TestIssuerAway: who can't be checked is not refused for that, and /readyz says why.
func TestIssuerAway(t *testing.T) {
	w := newWorld(t)
	const issuer = "https://127.0.0.1:1"
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": w.file("oidc.yaml", "clients:\n- {name: app, oidc: {issuer: '"+issuer+"', audience: a, app_ids: [b]}}\n")})
	encode := base64.RawURLEncoding.EncodeToString
	d.token = encode([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + encode([]byte(`{"iss":"`+issuer+`"}`)) + "." + encode(make([]byte, 64))
	if a := d.post(request("a", 1)); a.status != 503 || a.Code != "issuer" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.ask("GET", "/readyz", ""); a.status != 200 || !strings.Contains(a.body, `"code":"issuer"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if len(d.stored()) != 0 {
		t.Error("it is stored")
	}
}
