package crash_test

import (
	"strings"
	"time"
)

// when is on which side of a step the replica dies.
type when string

const (
	before    when = "before"     // the step is not taken
	replyLost when = "reply lost" // it is taken, and the replica dies before it receives the reply
	after     when = "after"      // it is taken, and the replica dies after it received the reply
	grace          = time.Minute  // for a trap to be sprung
	entries        = "$KV.UNRESTRICT_LEDGER.e."
	results        = "remediation.results"
)

// point is a step that is durable, or that others see.
type point struct {
	name    string
	subject string // prefix; of a call its method and path
	has     []string
	ask     func(w *world, id string)
}

// trap kills the first replica that comes to a point.
type trap struct {
	point
	when   when
	victim *replica
	fate   func() // what happens where there is no victim
	killed chan *replica
}

func (t *trap) fits(f frame) bool {
	if f.subject == "" || !strings.HasPrefix(f.subject, t.subject) {
		return false
	}
	for _, has := range t.has {
		if !strings.Contains(f.body, has) {
			return false
		}
	}
	return true
}

func (t *trap) spring() {
	if t.victim == nil {
		t.fate()
		return
	}
	t.victim.kill()
	t.killed <- t.victim
}

// sprung is the trap that the replica has stepped into.
func (w *world) sprung(r *replica, f frame) *trap {
	t := w.trap.Load()
	if t == nil || !t.fits(f) || !w.trap.CompareAndSwap(t, nil) {
		return nil
	}
	t.victim = r
	return t
}

// dieAt has a replica die at a point, and starts it anew.
func (w *world) dieAt(p point, at when) {
	w.t.Helper()
	t := &trap{point: p, when: at, killed: make(chan *replica, 1)}
	w.trap.Store(t)
	p.ask(w, strings.ReplaceAll(p.name+" "+string(at), " ", "-"))
	select {
	case r := <-t.killed:
		r.start()
	case <-time.After(grace):
		w.t.Fatalf("no replica came to: %s, %s\n%s", at, p.name, w.logs("", 40))
	}
}

// perish tries points in all forms. An acknowledgement, which nothing answers, has two.
func (w *world) perish(points []point) {
	w.t.Helper()
	w.readiness("")
	for _, p := range points {
		for _, at := range []when{before, replyLost, after} {
			if at == replyLost && p.subject == acknowledgements {
				continue
			}
			w.dieAt(p, at)
		}
	}
}

const acknowledgements = "$JS.ACK."
