package crash_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a child that can be killed at any time from any goroutine, and started again.
type process struct {
	t    *testing.T
	name string
	log  string // file, of all its lives
	env  []string
	argv []string

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // of this life
}

func (p *process) start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.env, filepath.Dir(p.log), out, out, bound()
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // killed, mostly
		close(ended)
	}(p.ended)
}

// kill returns when the process is gone.
func (p *process) kill() { p.signal(os.Kill) }

// stop asks it to end in order; its exit status, -1 if a signal ended it.
func (p *process) stop() int { return p.signal(syscall.SIGTERM) }

func (p *process) signal(s os.Signal) (status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return -1
	}
	_ = p.cmd.Process.Signal(s) // gone already, otherwise
	<-p.ended
	status = p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return status
}

// said is the log of all lives.
func (p *process) said() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil && !os.IsNotExist(err) { // it was not started yet
		p.t.Error(err)
	}
	return text
}

// complaints are signs of a bug that no state shows.
func (p *process) complaints() (found []string) {
	text := p.said()
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "handler panicked", "fatal error: "} {
		if i := bytes.Index(text, []byte(sign)); i >= 0 {
			found = append(found, p.name+": "+string(text[i:min(len(text), i+3000)]))
		}
	}
	return found
}

// lines are the log's lines with the word, the last ones if there are many.
func (p *process) lines(word string, most int) string {
	var found []string
	for line := range strings.SplitSeq(string(p.said()), "\n") {
		if strings.Contains(line, word) {
			found = append(found, p.name+" "+line)
		}
	}
	return strings.Join(found[max(0, len(found)-most):], "\n")
}

// replica is one `worker run` with what stands between it and the world.
type replica struct {
	process
	broker *proxy
	api    http.Server
	admin  string
	deaths *atomic.Int64
}

// kill counts.
func (r *replica) kill() {
	r.deaths.Add(1)
	r.process.kill()
}

// readiness is the code of the first reason why the replica isn't ready; "" if it is, "gone" if nobody answers.
func (r *replica) readiness() string {
	client := http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return "gone"
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "gone"
	}
	var state struct {
		Reasons []struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &state); err != nil {
		r.t.Errorf("/readyz: %v: %s", err, body)
	}
	if len(state.Reasons) == 0 {
		return ""
	}
	return state.Reasons[0].Code
}

var lastPort atomic.Int32

// freeAddr is an address to listen at again after a restart. It is below the ports that connections get by themselves:
// else a connection to a port that nobody listens at can end up at itself.
func freeAddr(t *testing.T) string {
	t.Helper()
	lastPort.CompareAndSwap(0, 20_000+rand.Int32N(10_000))
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", lastPort.Add(1))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// until polls for a state of the world; what tells what is missing in case it never comes.
func until(t *testing.T, limit time.Duration, what func() string) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		missing := what()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v still: %s", limit, missing)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
