package crash_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// door is one `worker intake`, with a proxy of its own between it and the broker.
type door struct {
	process
	w      *world
	broker *proxy
	trap   atomic.Pointer[trap]
	addr   string
	dir    string
}

func (w *world) openDoor() *door {
	w.t.Helper()
	d := &door{w: w, addr: freeAddr(w.t), dir: w.t.TempDir()}
	d.broker = newProxy(w.t, w.brokers[0].addr, func(f frame) *trap {
		t := d.trap.Load()
		if t == nil || !t.fits(f) || !d.trap.CompareAndSwap(t, nil) {
			return nil
		}
		if t.when == held {
			t.fate()
			return nil
		}
		return t
	})
	d.process = process{t: w.t, name: "intake", log: filepath.Join(w.t.TempDir(), "log"), argv: []string{worker, "intake"}, env: []string{
		"HOME=" + w.t.TempDir(), "NATS_URL=nats://" + d.broker.addr, "WORKER_DATA_DIR=" + d.dir, "WORKER_INTAKE_ADDR=" + d.addr, "LOG_FORMAT=json", "GORACE=atexit_sleep_ms=0",
	}}
	d.start()
	w.t.Cleanup(func() {
		d.kill()
		for _, c := range d.complaints() {
			w.t.Error(c)
		}
	})
	d.ready()
	return d
}

func (d *door) ready() {
	d.t.Helper()
	until(d.t, time.Minute, func() string {
		if status, _ := d.send(http.MethodGet, "/readyz", nil); status != http.StatusOK {
			return fmt.Sprintf("the intake's /readyz is %d\n%s", status, d.lines("", 10))
		}
		return ""
	})
}

// send returns the status, 0 if nobody answers, and the problem's code.
func (d *door) send(method, path string, body []byte) (status int, code string) {
	r, err := http.NewRequest(method, "http://"+d.addr+path, strings.NewReader(string(body)))
	if err != nil {
		d.t.Fatal(err)
	}
	token, _ := os.ReadFile(filepath.Join(d.dir, "intake-token")) // there is none before it has started
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return 0, ""
	}
	defer answer.Body.Close()
	var problem struct{ Code string }
	_ = json.NewDecoder(answer.Body).Decode(&problem)
	return answer.StatusCode, problem.Code
}

// held means that the step takes effect, and that the proxy holds its answer back until it is released.
const held when = "held"

// ask asks for a release that succeeds, and notes that it is to be done.
func (d *door) ask(id string) (body []byte) {
	d.w.api.AddMachine(machineOf(id), defendersim.Machine{})
	r := &request{id: id, machine: machineOf(id), comment: "crash " + id, want: message.Succeeded}
	r.payload = fmt.Appendf(nil, `{"id":%q,"machineId":%q,"comment":%q}`, r.id, r.machine, r.comment)
	d.w.asked[id] = r
	return r.payload
}

// The broker is stopped, killed and frozen between a request over HTTP and its acknowledgement: before the request has come to it,
// and after it was stored. The answer claims nothing, and the same request again, as its client is told, is carried out once.
func TestIntakeBeforeTheAcknowledgement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.readiness("")
	d := w.openDoor()
	b := w.brokers[0]
	stop := func() { b.stop() }
	hold, thaw := func() { d.broker.stall(true) }, func() { d.broker.stall(false) }
	for _, c := range []struct {
		name        string
		when        when // "": it befalls the broker before the request is sent
		befall, end func()
	}{
		{"stopped before it comes", before, stop, b.run},
		{"stopped after it was stored", replyLost, stop, b.run},
		{"killed before it comes", before, b.kill, b.run},
		{"killed after it was stored", replyLost, b.kill, b.run},
		{"frozen before it comes", "", hold, thaw},
		{"frozen after it was stored", held, hold, thaw},
	} {
		if status, _ := d.send(http.MethodPost, "/v1/requests", d.ask("calm, then "+c.name)); status != http.StatusAccepted {
			t.Fatalf("before the broker is %s: %d", c.name, status)
		}
		body := d.ask(c.name)
		if c.when == "" {
			c.befall()
		} else {
			d.trap.Store(&trap{point: point{subject: "remediation.unrestrict", has: []string{c.name}}, when: c.when, fate: c.befall})
		}
		if status, code := d.send(http.MethodPost, "/v1/requests", body); status != http.StatusServiceUnavailable || code != "unknown" {
			t.Errorf("%s: %d %s", c.name, status, code)
		}
		c.end()
		d.ready()
		until(t, time.Minute, func() string {
			if status, code := d.send(http.MethodPost, "/v1/requests", body); status/100 != 2 {
				return fmt.Sprintf("%s: again: %d %s", c.name, status, code)
			}
			return ""
		})
	}
	w.finish()
}
