package intake_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// TestARequestAndItsEnd: 202 with the message stored, the same by an intake that has just started, and the result at the end.
func TestARequestAndItsEnd(t *testing.T) {
	d := newWorld(t).open(nil)
	a := d.post(request("INC/1", 1))
	if a.status != 202 || a.ID != "INC/1" || a.Status != "NotStarted" || a.Duplicate || a.header.Get("Location") != d.url+"/v1/requests/INC%2F1" || a.header.Get("Operation-Location") != a.header.Get("Location") {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	all := d.stored()
	if len(all) != 1 || string(all[0].Data) != request("INC/1", 1) || all[0].Header.Get(message.HeaderClient) != "soar" {
		t.Fatalf("stored: %+v", all)
	}
	other := d.open(nil) // knows it too
	for _, d := range []*door{d, other} {
		if a := d.ask("GET", "/v1/requests/INC%2F1", ""); a.status != 202 || a.Status != "NotStarted" || a.Queue == nil || a.Queue.Lane != "normal" {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := d.ask("GET", "/v1/requests/INC%2F1?async=false", ""); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := d.desk().ask("GET", "/v1/requests/INC%2F1", ""); a.status != 404 || a.Code != "unknownRequest" {
			t.Errorf("another client sees %d %s", a.status, a.body)
		}
	}
	d.work()
	d.eventually("the end", func() bool { return d.ask("GET", "/v1/requests/INC%2F1", "").status == 200 })
	a = other.post(request("INC/1", 1))
	var result message.Result
	if err := json.Unmarshal(a.Result, &result); err != nil || a.status != 200 || !a.Duplicate || a.Status != "Succeeded" || a.Outcome != "succeeded" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if result.Client != "soar" || len(result.MachineAction) == 0 || len(d.sim.Calls()) == 0 {
		t.Errorf("result %s", a.Result)
	}
	if a := d.post(request("INC/1", 2)); a.status != 422 || a.Code != "idConflict" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestKnownWhileItWaits: nobody takes requests; the same again is one message, another lane one more, another machine none.
func TestKnownWhileItWaits(t *testing.T) {
	w := newWorld(t)
	w.open(nil).post(request("a", 1))
	d := w.open(nil)
	if a := d.post(request("a", 1)); a.status != 202 || !a.Duplicate || len(d.stored()) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.post(request("a", 2)); a.status != 422 || a.Code != "idConflict" || len(d.stored()) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.ask("POST", "/v1/requests?lane=urgent", request("a", 1)); a.status != 202 || !a.Duplicate || len(d.stored()) != 2 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.ask("GET", "/v1/requests/a", ""); a.Queue == nil || a.Queue.Ahead != 0 {
		t.Errorf("%s", a.body)
	}
	if a := d.desk().post(request("a", 3)); a.status != 202 || a.Duplicate || len(d.stored()) != 3 {
		t.Errorf("another client's: %d %s", a.status, a.body)
	}
	if a := d.desk().ask("POST", "/v1/requests?lane=urgent", request("b", 3)); a.status != 403 || a.Code != "forbidden" {
		t.Errorf("a lane that desk lacks: %d %s", a.status, a.body)
	}
}

func TestIDs(t *testing.T) {
	d := newWorld(t).open(nil)
	body := func(n int) string { return `{ "machineId":"` + machine(n) + `","comment":"c"}` }
	event := `{"specversion":"1.0","id":"7","source":"/s","type":"t", "data": {"machineId":"` + machine(4) + `","comment":"c"}}`
	for i, c := range []struct {
		body, id, stored string
		headers          []string
	}{
		{request("own", 1), "own", request("own", 1), []string{"Idempotency-Key", "key"}},
		{body(2), `k"1`, `{"id":"k\"1", ` + body(2)[2:], []string{"Idempotency-Key", `"k\"1"`}},
		{body(3), "bare", `{"id":"bare", ` + body(3)[2:], []string{"Idempotency-Key", "bare"}},
		{event, "/s#7", strings.Replace(event, `"data": {`, `"data": {"id":"/s#7",`, 1), []string{"Content-Type", "application/cloudevents+json"}},
		{body(5), "/s#x y", `{"id":"/s#x y", ` + body(5)[2:], []string{"ce-specversion", "1.0", "ce-source", "/s", "ce-id", "x%20y", "ce-type", "t"}},
		{body(6), "", "", nil},
	} {
		a := d.post(c.body, c.headers...)
		if a.status != 202 || a.ID == "" || c.id != "" && a.ID != c.id {
			t.Fatalf("%s: %d %s", c.body, a.status, a.body)
		}
		if got := string(d.stored()[i].Data); c.stored != "" && got != c.stored {
			t.Errorf("stored: %s", cmp.Diff(c.stored, got))
		}
		if a := d.ask("GET", strings.TrimPrefix(a.header.Get("Location"), d.url), ""); a.status != 202 {
			t.Errorf("its Location leads to %d %s", a.status, a.body)
		}
	}
}

func TestWhatIsNotTaken(t *testing.T) {
	d := newWorld(t).open(nil)
	late := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for name, c := range map[string]struct {
		path, body, code, field string
		status                  int
		headers                 []string
	}{
		"no machine":     {body: `{"comment":"c"}`, code: "malformed", field: "machineId", status: 400},
		"reserved id":    {body: request("REMEDIATION:7", 1), code: "malformed", field: "id", status: 400},
		"reserved key":   {body: `{"machineId":"` + machine(1) + `","comment":"c"}`, code: "malformed", field: "id", status: 400, headers: []string{"Idempotency-Key", "REMEDIATION:7"}},
		"no JSON":        {body: `{`, code: "malformed", status: 400},
		"no lane":        {path: "?lane=express", body: request("a", 1), code: "malformed", field: "lane", status: 400},
		"expired":        {body: `{"machineId":"` + machine(1) + `","comment":"c","expiresAt":"` + late + `"}`, code: "expired", field: "expiresAt", status: 422},
		"form":           {body: "machineId=" + machine(1), code: "mediaType", status: 415, headers: []string{"Content-Type", "application/x-www-form-urlencoded"}},
		"text":           {body: request("a", 1), code: "mediaType", status: 415, headers: []string{"Content-Type", "text/plain"}},
		"events":         {body: "[]", code: "mediaType", status: 415, headers: []string{"Content-Type", "application/cloudevents-batch+json"}},
		"encoded":        {body: "x", code: "mediaType", status: 415, headers: []string{"Content-Encoding", "gzip"}},
		"large":          {body: strings.Repeat("[", 64<<10+1), code: "tooLarge", status: 413},
		"no token":       {body: request("a", 1), code: "unauthenticated", status: 401, headers: []string{"Authorization", "Bearer x"}},
		"token in Basic": {body: request("a", 1), code: "unauthenticated", status: 401, headers: []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("a:"+token))}},
	} {
		a := d.ask("POST", "/v1/requests"+c.path, c.body, c.headers...)
		if a.status != c.status || a.Code != c.code || a.Field != c.field {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if n := len(d.stored()); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
	for _, c := range [][2]string{{"PUT", "/v1/requests"}, {"HEAD", "/v1/requests"}, {"POST", "/v1/requests/a"}, {"POST", "/readyz"}} {
		if a := d.ask(c[0], c[1], ""); a.status != 405 || a.header.Get("Allow") == "" {
			t.Errorf("%s: %d %s", c, a.status, a.body)
		}
	}
	for _, path := range []string{"/", "/v1", "/v1//requests", "/v1/requests/", "/v1/./requests", "/debug/pprof/", "/schemas/none.json"} {
		if a := d.ask("GET", path, ""); a.status != 404 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestNothingHeadersSay: no header of a request means anything in the message but those of its form.
func TestNothingHeadersSay(t *testing.T) {
	d := newWorld(t).open(nil)
	if a := d.post(request("a", 1), "Request-Client", "desk", "Unrestrict-Replay", "7", "Nats-Msg-Id", "x", "Nats-Expected-Stream", "y", "Request-Signer", "U", "traceparent",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	h := d.stored()[0].Header
	delete(h, "Nats-Msg-Id") // of the intake's own
	want := message.Header{"Request-Client": {"soar"}, "content-type": {"application/json"}, "traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
}

// TestBrokerAway: what the broker has not acknowledged is never a 2xx. Refused: nothing is stored. The answer lost: it may be, and
// the same again is one request.
func TestBrokerAway(t *testing.T) {
	d := newWorld(t).open(nil)
	d.wire.set(true, false) // mute: carried out, reply lost
	a := d.post(`{"machineId":"` + machine(1) + `","comment":"c"}`)
	if a.status != 503 || a.Code != "unknown" || a.header.Get("Retry-After") == "" {
		t.Errorf("the answer lost: %d %s", a.status, a.body)
	}
	d.eventually("the message", func() bool { return len(d.stored()) == 1 })
	d.wire.set(false, true)
	d.eventually("that it is not ready", func() bool { return d.ask("GET", "/readyz", "").status == 503 })
	if a := d.post(request("a", 1)); a.status != 503 || a.Code != "notQueued" || len(d.stored()) != 1 {
		t.Errorf("no connection: %d %s", a.status, a.body)
	}
	if a := d.ask("GET", "/v1/requests/a", ""); a.status != 503 || a.Code != "unavailable" {
		t.Errorf("no connection: %d %s", a.status, a.body)
	}
	d.wire.set(false, false)
	d.eventually("that it is ready", func() bool { return d.ask("GET", "/readyz", "").status == 200 })
	if a := d.post(request("a", 1)); a.status != 202 || a.Duplicate || len(d.stored()) != 2 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestNoStream: the broker is there, and nothing takes requests: that is certain.
func TestNoStream(t *testing.T) {
	d := newWorld(t).open(map[string]string{"WORKER_SUBJECT": "nobody.listens", "WORKER_STREAM": "NOBODY"})
	if a := d.post(request("a", 1)); a.status != 503 || a.Code != "notQueued" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.ask("GET", "/v1/requests/a", ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestSignedClients: the intake signs with a client's own seed; a client that signs itself is passed on byte for byte.
func TestSignedClients(t *testing.T) {
	w := newWorld(t)
	key := func() (seed []byte, public string) {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, _ = pair.Seed()
		public, _ = pair.PublicKey()
		return seed, public
	}
	soarSeed, soarKey := key()
	annSeed, annKey := key()
	benSeed, benKey := key()
	file := w.file("signing.yaml", "clients:\n- {name: soar, token_sha256: ["+digest(token)+"], signer_seed_file: "+w.file("soar.nk", string(soarSeed))+"}\n"+
		"- {name: ann, token_sha256: ["+digest(otherToken)+"], signer: "+annKey+"}\n")
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": file, "WORKER_TRUSTED_SIGNERS": "soar=" + soarKey + ",ann=" + annKey + ",ben=" + benKey})
	if a := d.post(`{"machineId":"` + machine(1) + `","comment":"c"}`); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	m := d.stored()[0]
	var said struct {
		ID        string
		ExpiresAt time.Time
	}
	_ = json.Unmarshal(m.Data, &said)
	if !message.Signed(soarKey, m.Header.Get(message.HeaderSignature), m.Subject, m.Data) || said.ID == "" || time.Until(said.ExpiresAt) < 23*time.Hour {
		t.Errorf("stored: %s %v", m.Data, m.Header)
	}
	if a := d.ask("GET", "/v1/requests/"+said.ID, ""); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.post(request("x", 1), message.HeaderSigner, soarKey); a.status != 403 {
		t.Errorf("a signature beside the intake's: %d %s", a.status, a.body)
	}
	own := ` {"id":"own","machineId":"` + machine(2) + `","comment":"c","expiresAt":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `" }`
	signed := func(seed []byte, subject string) []string {
		signer, signature, err := message.Sign(seed, subject, []byte(own))
		if err != nil {
			t.Fatal(err)
		}
		return []string{message.HeaderSigner, signer, message.HeaderSignature, signature}
	}
	ann := d.desk()
	for code, headers := range map[string][]string{"unsigned": nil, "badSignature": signed(annSeed, "other"), "forbidden": signed(benSeed, "remediation.unrestrict")} {
		if a := ann.post(own, headers...); a.Code != code {
			t.Errorf("%s: %d %s", code, a.status, a.body)
		}
	}
	if n := len(d.stored()); n != 1 {
		t.Errorf("%d messages are stored", n)
	}
	if a := ann.post(own, signed(annSeed, "remediation.unrestrict")...); a.status != 202 || string(d.stored()[1].Data) != own {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestCancel: a request that waits ends cancelled and is never called; what is not known is not ordered about, and another client's
// is not known.
func TestCancel(t *testing.T) {
	d := newWorld(t).open(nil)
	d.post(request("a", 1))
	if a := d.desk().ask("DELETE", "/v1/requests/a", ""); a.status != 404 {
		t.Errorf("another client's: %d %s", a.status, a.body)
	}
	if a := d.ask("DELETE", "/v1/requests/a", ""); a.status != 202 || a.ID != "a" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	d.work()
	d.eventually("the end", func() bool { return d.ask("GET", "/v1/requests/a", "").status == 200 })
	if a := d.ask("DELETE", "/v1/requests/a", ""); a.status != 202 || a.Status != "Canceled" || a.Outcome != "cancelled" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, call := range d.sim.Calls() {
		if call.Op == "unrestrict" {
			t.Errorf("it was called: %+v", call)
		}
	}
}

// TestPreferWait answers with the end if it comes, and ends with the intake if it does not.
func TestPreferWait(t *testing.T) {
	d := newWorld(t).open(nil)
	waited := make(chan answer)
	go func() { waited <- d.post(request("never", 1), "Prefer", "respond-async, wait=30") }()
	d.eventually("the message", func() bool { return len(d.stored()) == 1 })
	d.stop()
	if a := <-waited; a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	d = d.open(nil)
	d.work()
	if a := d.post(request("soon", 2), "Prefer", "wait=30"); a.status != 200 || a.Status != "Succeeded" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPreferWaitTellsTheStateAfterIt: what comes back when the end has not come is how the request stands then, not before the wait.
func TestPreferWaitTellsTheStateAfterIt(t *testing.T) {
	d := newWorld(t).open(nil)
	other := d.open(nil)
	waited := make(chan answer)
	go func() { waited <- d.post(request("slow", 1), "Prefer", "wait=30") }()
	d.eventually("the message", func() bool { return len(d.stored()) == 1 })
	d.workWith(defendersim.Lifecycle{Pending: time.Hour})
	d.eventually("the acceptance", func() bool { return other.ask("GET", "/v1/requests/slow", "").Outcome == "submitted" })
	d.stop() // ends the wait, as its time would
	if a := <-waited; a.status != 202 || a.Status != "Running" || a.Outcome != "submitted" || a.Duplicate {
		t.Errorf("%d %s", a.status, a.body)
	}
}
