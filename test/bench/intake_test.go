package bench_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// door is a `worker intake` as a process, with one client that may ask as often as it likes.
type door struct {
	b      *testing.B
	pid    int
	url    string
	client http.Client
	n      atomic.Int64
}

const doorToken = "bench"

func openDoor(s *site) *door {
	s.b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	digest := sha256.Sum256([]byte(doorToken))
	clients := filepath.Join(s.b.TempDir(), "clients.yaml")
	text := "clients:\n- {name: bench, lanes: [normal, bulk], rate: 1000000, token_sha256: [" + hex.EncodeToString(digest[:]) + "]}\n"
	if err := os.WriteFile(clients, []byte(text), 0o600); err != nil {
		s.b.Fatal(err)
	}
	cmd := exec.CommandContext(s.b.Context(), s.bin, "intake")
	cmd.Env, cmd.Stderr = append(slices.Clone(s.env), "WORKER_INTAKE_ADDR="+addr, "WORKER_INTAKE_CLIENTS_FILE="+clients), os.Stderr
	if err := cmd.Start(); err != nil {
		s.b.Fatal(err)
	}
	s.b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	d := &door{b: s.b, pid: cmd.Process.Pid, url: "http://" + addr, client: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64}}}
	s.b.Cleanup(d.client.CloseIdleConnections)
	for {
		if answer, err := d.client.Get(d.url + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return d
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (d *door) send(path, kind string, body []byte) {
	r, err := http.NewRequestWithContext(d.b.Context(), http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		d.b.Error(err)
		return
	}
	r.Header = http.Header{"Authorization": {"Bearer " + doorToken}, "Content-Type": {kind}}
	answer, err := d.client.Do(r)
	if err != nil {
		d.b.Error(err)
		return
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusAccepted {
		d.b.Errorf("%s is answered %d %s", path, answer.StatusCode, text)
	}
}

// post asks for one more machine.
func (d *door) post() {
	n := d.n.Add(1)
	d.send("/v1/requests", "application/json", fmt.Appendf(nil, `{"id":"r-%d","machineId":"%040x","comment":"Cleaned and validated"}`, n, n))
}

// paced sends so many a second, whatever the answers, and returns how long each took, counted from when it was due.
func (d *door) paced(perSecond int, span time.Duration) (took []float64) {
	var mu sync.Mutex
	var under sync.WaitGroup
	start := time.Now()
	for n := range perSecond * int(span/time.Second) {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(due))
		under.Go(func() {
			d.post()
			mu.Lock()
			defer mu.Unlock()
			took = append(took, float64(time.Since(due).Microseconds())/1000)
		})
	}
	under.Wait()
	slices.Sort(took)
	return took
}

// intake measures the HTTP door: how much it takes, and its memory meanwhile. The broker, which writes to disk later,
// and the clients are in this process, on the same machine.
func intake(b *testing.B, t *table) {
	d := openDoor(newSite(b, t.bin, defendersim.Config{Limits: []defendersim.Limit{}}))
	rss := func() float64 { return usage(b, d.pid).resident }
	t.row("intake at rest: resident, MB", rss(), none, "")
	took := d.paced(500, 20*time.Second)
	t.row("intake, 500 requests a second: p99, ms", took[len(took)*99/100], none, fmt.Sprintf("(50); median %.1f ms", took[len(took)/2]))
	t.row("intake, 500 requests a second: resident, MB", rss(), none, "(40)")

	const clients, span = 32, 10 * time.Second
	var at sync.WaitGroup
	before, cpu, start := d.n.Load(), usage(b, d.pid).cpu, time.Now()
	for range clients {
		at.Go(func() {
			for time.Since(start) < span {
				d.post()
			}
		})
	}
	at.Wait()
	sent, after := float64(d.n.Load()-before), usage(b, d.pid)
	t.row("intake, 32 at once: requests a second", sent/time.Since(start).Seconds(), none, "(500)")
	t.row("intake, 32 at once: CPU a request, us", (after.cpu-cpu)*1000/sent, none, "of the intake alone")
	t.row("intake, 32 at once: resident, MB", rss(), none, "(40)")

	for range 1000 {
		c, err := net.Dial("tcp", d.url[len("http://"):])
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(5 * time.Second) // all are answered, and at rest
	t.row("intake, 1,000 idle connections: resident, MB", rss(), none, "")

	var each []float64
	for n := range 8 {
		var rows bytes.Buffer
		rows.WriteString("machineId,comment\n")
		for i := range 10_000 {
			fmt.Fprintf(&rows, "%040x,Cleaned and validated\n", n*10_000+i)
		}
		d.send(fmt.Sprintf("/v1/batches/bench-%d", n), "text/csv", rows.Bytes())
		each = append(each, rss())
	}
	t.row("intake, 8 batches of 10,000 rows: resident after the last, MB", each[len(each)-1], none, fmt.Sprintf("after the first %.0f, at most %.0f", each[0], slices.Max(each)))
}
