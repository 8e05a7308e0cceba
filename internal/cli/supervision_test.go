package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"example.com/unrestrict-worker/internal/service"
)

// manager is a socket as a service manager has it, for one worker.
type manager struct {
	path  string
	conn  *net.UnixConn
	heard chan string // a line each; closed with conn
	said  []string    // what until has taken from it
}

// newManager makes a manager that does not listen yet, and the variables that name it.
func newManager(t *testing.T) (m *manager, env []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // a socket's path must be short, and t.TempDir has the test's name
	if err != nil {
		t.Fatal(err)
	}
	m = &manager{path: filepath.Join(dir, "s"), heard: make(chan string, 1<<12)}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close(); _ = os.RemoveAll(dir) })
	return m, []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=300000"}
}

func (m *manager) listens() {
	go func() {
		defer close(m.heard)
		for b := make([]byte, 4096); ; {
			n, err := m.conn.Read(b)
			if err != nil {
				return
			}
			for line := range strings.SplitSeq(string(b[:n]), "\n") {
				m.heard <- line
			}
		}
	}()
}

// tell says something to the manager in the worker's place, and fails when nothing more fits into its queue.
func (m *manager) tell(line string) error {
	conn, err := net.Dial("unixgram", m.path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(line))
	return err
}

// until waits for a line, and returns all that was said before and with it.
func (m *manager) until(t *testing.T, line string) []string {
	t.Helper()
	late := time.After(time.Minute)
	for !slices.Contains(m.said, line) {
		select {
		case one := <-m.heard:
			m.said = append(m.said, one)
		case <-late:
			t.Fatalf("no %s among %q", line, slices.Compact(m.said))
		}
	}
	return m.said
}

// TestServiceManagerIsTold runs a worker under a manager: ready once it has its broker, signs of life, what it does, and
// that it stops.
func TestServiceManagerIsTold(t *testing.T) {
	env := terminal(t.TempDir())
	sim, pasted := startSimulator(t, env, []string{"worker", "simulate"})
	m, vars := newManager(t)
	m.listens()
	run, _, _ := startRun(t, slices.Concat(env, pasted, vars), []string{"worker", "run"})
	if said := m.until(t, "READY=1"); !slices.ContainsFunc(said, func(l string) bool { return strings.HasPrefix(l, "STATUS=taking ") }) {
		t.Errorf("ready without a status: %q", said)
	}
	m.until(t, "STATUS=taking requests: 0 in hand, 0 actions followed")
	m.until(t, "WATCHDOG=1")
	run.stop(t)
	m.until(t, "STOPPING=1")
	sim.stop(t)
}

// TestServiceManagerNeedNotWaitForTheBroker: a start that waits for a broker has not failed.
func TestServiceManagerNeedNotWaitForTheBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	m, vars := newManager(t)
	m.listens()
	p := start(t, slices.Concat(terminal(t.TempDir()), vars, []string{"NATS_URL=nats://" + addr, "DEFENDER_AUTH=azure-cli"}), []string{"worker", "run"}, true)
	p.until(t, func(string) bool { return true })
	if said := m.until(t, "READY=1"); !slices.ContainsFunc(said, func(l string) bool {
		return strings.HasPrefix(l, "STATUS=taking none: broker: nats: no servers available")
	}) {
		t.Errorf("the status doesn't say what is waited for: %q", said)
	}
	p.stop(t)
}

func TestRefusedStartIsNeverReady(t *testing.T) {
	m, vars := newManager(t)
	m.listens()
	env := slices.Concat(terminal(t.TempDir()), vars, []string{"WORKER_PROVISION=false", "DEFENDER_AUTH=azure-cli"})
	p := start(t, env, []string{"worker", "run"}, true)
	for p.lines.Scan() { // to its end
	}
	if err := p.cmd.Wait(); err == nil {
		t.Error("a worker without its streams runs")
	}
	if err := m.tell("END"); err != nil {
		t.Fatal(err)
	}
	if said := m.until(t, "END"); slices.Contains(said, "READY=1") {
		t.Errorf("%q", said)
	}
}

// TestDeafServiceManagerHoldsUpNothing: the queue of a manager that has stopped reading is full.
func TestDeafServiceManagerHoldsUpNothing(t *testing.T) {
	m, vars := newManager(t)
	var err error
	for err == nil {
		err = m.tell("full")
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	p := start(t, slices.Concat(terminal(t.TempDir()), vars, []string{"DEFENDER_AUTH=azure-cli"}), []string{"worker", "run"}, true)
	p.until(t, func(string) bool { return true })
	p.stop(t)
}

// TestStuckWorkerIsSilent: the manager hears signs of life only while the loop turns, and everything else only once.
func TestStuckWorkerIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan string, 100)
		var stuck atomic.Bool
		v := &service.Supervision{
			Send:     func(state string) error { sent <- state; return nil },
			Watchdog: true, Every: 10 * time.Second,
			Started: func() bool { return true },
			Alive: func() error {
				if stuck.Load() {
					return errors.New("stuck")
				}
				return nil
			},
			Doing: func() string { return "first line\nMAINPID=1" },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended, told := make(chan struct{}), make(chan struct{})
		go func() { defer close(told); v.Run(ctx, ended, zap.NewNop()) }()
		after := func(d time.Duration, want ...string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			var said []string
			for len(sent) > 0 {
				said = append(said, strings.Split(<-sent, "\n")...)
			}
			if diff := cmp.Diff(want, said); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
		}
		after(time.Second, "STATUS=first line MAINPID=1", "READY=1", "WATCHDOG=1")
		after(20*time.Second, "WATCHDOG=1", "WATCHDOG=1")
		stuck.Store(true)
		after(time.Hour)
		stuck.Store(false)
		cancel()
		after(time.Second, "STOPPING=1", "STATUS=finishing what is in hand", "WATCHDOG=1")
		after(10*time.Second, "WATCHDOG=1")
		close(ended)
		<-told
	})
}

// TestUnheardIsSaidAgain: what could not be told is told again; the log says it once.
func TestUnheardIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		var hears atomic.Bool
		v := &service.Supervision{
			Send: func(state string) error {
				if !hears.Load() {
					return errors.New("no such socket")
				}
				heard = append(heard, state)
				return nil
			},
			Every: time.Second, Started: func() bool { return true }, Alive: func() error { return nil }, Doing: func() string { return "working" },
		}
		core, logs := observer.New(zapcore.WarnLevel)
		ended, told := make(chan struct{}), make(chan struct{})
		go func() { defer close(told); v.Run(t.Context(), ended, zap.New(core)) }()
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		hears.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"STATUS=working\nREADY=1"}, heard); diff != "" {
			t.Error(diff)
		}
		if logs.Len() != 1 {
			t.Errorf("%d warnings, want 1", logs.Len())
		}
		close(ended)
		<-told
	})
}

func TestServiceManagerMustMakeSense(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := service.Supervise(&service.Service{}); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Error(err)
	}
}
