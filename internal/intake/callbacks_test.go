package intake_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

// delivery is one POST to a receiver.
type delivery struct {
	header http.Header
	body   string
	result message.Result
}

// receiver is a target of callbacks.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []delivery
	answer func(nth int, w http.ResponseWriter) // nil: 204
}

func newReceiver(t *testing.T, answer func(nth int, w http.ResponseWriter)) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		body, _ := io.ReadAll(in.Body)
		d := delivery{header: in.Header, body: string(body)}
		_ = json.Unmarshal(body, &d.result)
		r.mu.Lock()
		r.got = append(r.got, d)
		nth := len(r.got)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(nth, w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]delivery(nil), r.got...)
}

// ids are what was delivered; two are posted at once, so the order means nothing.
func (r *receiver) ids() (ids []string) {
	for _, d := range r.all() {
		ids = append(ids, d.result.RequestID+" "+d.result.Outcome)
	}
	slices.Sort(ids)
	return ids
}

// TestCallbacks: each target gets its client's own results, signed, those that it wants; one that refuses, or whose answer is lost,
// gets them again under the same id; one that is gone is left alone; none is in another's way.
func TestCallbacks(t *testing.T) {
	w := newWorld(t)
	key := []byte("a-secret-of-twenty-four-")
	secret := "secret_file: " + w.file("hook.secret", "whsec_"+base64.StdEncoding.EncodeToString(key))
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	all, finals, others := newReceiver(t, nil), newReceiver(t, nil), newReceiver(t, nil)
	refuses := newReceiver(t, func(nth int, w http.ResponseWriter) {
		if nth == 1 {
			w.Header().Set("Location", all.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	loses := newReceiver(t, func(nth int, _ http.ResponseWriter) {
		if nth == 1 {
			panic(http.ErrAbortHandler) // carried out, and the answer is lost
		}
	})
	gone := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusGone) })
	hook := func(name, url, more string) string { return fmt.Sprintf("{name: %s, url: %q, %s}", name, url, more) }
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": w.file("calling.yaml", "clients:\n- {name: soar, token_sha256: ["+digest(token)+"], callbacks: ["+strings.Join([]string{
		hook("all", all.URL, secret), hook("finals", finals.URL, "final_only: true, key_file: "+w.file("hook.nk", string(seed))), hook("refuses", refuses.URL, "final_only: true, "+secret),
		hook("loses", loses.URL, "outcomes: [succeeded], "+secret), hook("gone", gone.URL, "final_only: true, "+secret),
	}, ", ")+"]}\n- {name: desk, token_sha256: ["+digest(otherToken)+"], callbacks: ["+hook("others", others.URL, secret)+"]}\n")})
	d.work()
	for i := 1; i <= 2; i++ {
		if a := d.post(request(fmt.Sprint("r", i), i), "Prefer", "wait=30"); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	d.eventually("every result at every target", func() bool {
		return len(all.all()) == 4 && len(finals.all()) == 2 && len(refuses.all()) == 3 && len(loses.all()) == 3 && len(gone.all()) > 0
	})
	for _, d := range all.all() {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", d.header.Get("webhook-id"), d.header.Get("webhook-timestamp"), d.body)
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); d.header.Get("webhook-signature") != want {
			t.Errorf("signed %s, want %s", d.header.Get("webhook-signature"), want)
		}
		if d.header.Get("ce-type") != "remediation.unrestrict."+d.result.Outcome || d.header.Get("ce-subject") != d.result.MachineID || d.result.Client != "soar" {
			t.Errorf("%v %s", d.header, d.body)
		}
	}
	for _, d := range finals.all() {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(d.header.Get("webhook-signature"), "v1a,"))
		if err != nil || pair.Verify(fmt.Appendf(nil, "%s.%s.%s", d.header.Get("webhook-id"), d.header.Get("webhook-timestamp"), d.body), raw) != nil || !d.result.Final {
			t.Errorf("signed %s: %s", d.header.Get("webhook-signature"), d.body)
		}
	}
	for name, r := range map[string]*receiver{"refuses": refuses, "loses": loses} {
		ids := map[string]string{}
		for _, d := range r.all() {
			if first, again := ids[d.result.RequestID]; again && first != d.header.Get("webhook-id") {
				t.Errorf("%s: %s came as %s and %s", name, d.result.RequestID, first, d.header.Get("webhook-id"))
			}
			ids[d.result.RequestID] = d.header.Get("webhook-id")
		}
		if len(ids) != 2 || ids["r1"] == ids["r2"] {
			t.Errorf("%s: %q", name, ids)
		}
	}
	if n := len(gone.all()); n > 2 { // two are posted at once
		t.Errorf("one that is gone was called %d times", n)
	}
	if len(others.all()) != 0 {
		t.Errorf("desk got %q", others.ids())
	}
	if a := d.desk().post(request("r3", 3), "Prefer", "wait=30"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	d.eventually("desk's own", func() bool { return cmp.Equal(others.ids(), []string{"r3 submitted", "r3 succeeded"}) })
	// What another intake has delivered comes no more: how far each is the broker knows.
	d.stop()
	again := d.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": d.file("calling.yaml", "clients:\n- {name: soar, token_sha256: ["+digest(token)+"], callbacks: ["+hook("all", all.URL, secret)+"]}\n")})
	if a := again.post(request("r4", 4), "Prefer", "wait=30"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	d.eventually("the next", func() bool { return len(all.all()) >= 6 })
	if ids := all.ids(); len(ids) != 6 {
		t.Errorf("delivered: %q", ids)
	}
}

// TestATargetThatHangs holds up no other: they have their results before it has given its first answer.
func TestATargetThatHangs(t *testing.T) {
	w := newWorld(t)
	secret := "secret_file: " + w.file("hook.secret", "whsec_"+base64.StdEncoding.EncodeToString([]byte("a-secret-of-twenty-four-")))
	began, done := make(chan struct{}, 100), make(chan struct{})
	var givenUp atomic.Bool
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		began <- struct{}{}
		select {
		case <-done:
		case <-r.Context().Done():
			givenUp.Store(true)
		}
	}))
	defer hangs.Close()
	defer close(done)
	other := newReceiver(t, nil)
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": w.file("hanging.yaml", fmt.Sprintf(
		"clients:\n- {name: soar, token_sha256: [%s], callbacks: [{name: hangs, url: %q, %s}, {name: other, url: %q, final_only: true, %s}]}\n", digest(token), hangs.URL, secret, other.URL, secret))})
	d.work()
	d.post(request("r1", 1))
	<-began
	d.eventually("the other's result", func() bool { return len(other.all()) == 1 })
	if givenUp.Load() {
		t.Error("the other target waited until the one that hangs was given up")
	}
}

// TestANewCallback gets what is published after it was written into the file, and nothing of what was before.
func TestANewCallback(t *testing.T) {
	w := newWorld(t)
	secret := w.file("hook.secret", "whsec_"+base64.StdEncoding.EncodeToString([]byte("a-secret-of-twenty-four-")))
	target := newReceiver(t, nil)
	client := "clients:\n- {name: soar, token_sha256: [" + digest(token) + "]"
	d := w.open(map[string]string{"WORKER_INTAKE_CLIENTS_FILE": w.file("later.yaml", client+"}\n")})
	d.work()
	if a := d.post(request("before", 1), "Prefer", "wait=30"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.file("later.yaml", client+fmt.Sprintf(", callbacks: [{name: new, url: %q, secret_file: %s}]}\n", target.URL, secret))
	if a := d.post(request("after", 2), "Prefer", "wait=30"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	d.eventually("its results", func() bool { return len(target.all()) >= 2 })
	if diff := cmp.Diff([]string{"after submitted", "after succeeded"}, target.ids()); diff != "" {
		t.Error(diff)
	}
}
