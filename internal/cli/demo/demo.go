// Package demo is `worker demo` and `worker simulate`.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/why"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// demoLimit is how long the sample may take. The machine that is not found takes the longest, five seconds.
const demoLimit = 2 * time.Minute

// Run shows the whole system on loopback: broker, simulated API, a worker with a sample bulk, and an intake with one request.
func (c *Cmd) Run(ctx context.Context, env *session.Env) (err error) {
	dir, err := os.MkdirTemp("", "worker-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	sim := NewSimulation(dir)
	sim.api = defendersim.New(defendersim.Config{
		AllowUnknownMachines: c.Stay, CallLog: 1000, Lifecycle: defendersim.Lifecycle{Pending: time.Second, InProgress: time.Second},
		TokenLifetime: 24 * time.Hour * 365, TenantID: sim.tenant, ClientID: sim.app.ClientID,
	})
	prepare(sim.api)
	apiURL, stopAPI, err := serveSimulation(ctx, sim)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer stopAPI()

	w, done, stop, err := startDemoWorker(ctx, env, c.Stay, dir, apiURL, sim.TokenPath())
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer stop()
	fmt.Fprintf(env.Stdout, "A worker, a NATS broker (%s) and a simulated Defender API (%s) run in this process.\nStatus page: http://%s/\n\n", w.Broker.URL(), apiURL, w.AdminAddr)

	door, closed, stopIntake, err := startIntake(ctx, env, c.Stay, dir, w)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer stopIntake()

	ok, err := showSample(ctx, w.Broker, env.Stdout)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	over, err := door.show(ctx, env.Stdout)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if !c.Stay {
		fmt.Fprintf(env.Stdout, "\nAll of it has ended, with the page. To keep it running: %s demo --stay\n", programToType())
	} else if ctx.Err() == nil {
		printStay(env.Stdout, w)
		door.printStay(env.Stdout)
		if err := door.stay(ctx, env.Stdout, done, closed); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	if !ok || !over {
		return session.ExitStatus(1)
	}
	return nil
}

func serveSimulation(ctx context.Context, sim *Simulation) (url string, stop func(), err error) {
	if err := sim.writeToken(); err != nil {
		return "", nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: sim.api, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	return "http://" + l.Addr().String(), func() { sim.api.Close(); _ = server.Close(); <-ended }, nil
}

// startDemoWorker runs a worker with the demo's own settings, whatever the environment has, and waits until it is ready. With stay
// the worker takes its addresses and its call budget from the environment.
func startDemoWorker(ctx context.Context, env *session.Env, stay bool, dir, apiURL, tokenFile string) (w *service.Service, done chan error, stop func(), err error) {
	settings, err := config.SettingsFrom(map[string]string{
		"WORKER_EMBEDDED_ADDR": "127.0.0.1:0", "WORKER_ADMIN_ADDR": "127.0.0.1:0", "WORKER_DATA_DIR": filepath.Join(dir, "data"),
		"WORKER_POLL_INTERVAL": "500ms", "DEFENDER_API_URL": apiURL, "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": tokenFile,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	if stay {
		settings.Embedded.Addr, settings.Admin.Addr = freeOr(ctx, env.Settings.Embedded.Addr), freeOr(ctx, env.Settings.Admin.Addr)
		settings.Rates = env.Settings.Rates // with limits of a few calls one can see requests wait
	}
	log, level := service.NewLogger(config.Log{Level: "error", Format: env.Settings.Log.Format}, env.Stderr)
	if w, err = service.New(settings, env.Lookup, log, level); err != nil {
		return nil, nil, nil, err
	}
	w.Explain = why.Stories
	ctx, cancel := context.WithCancel(ctx)
	done = make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = func() { cancel(); <-w.Ended }
	for {
		if reasons, _ := health.Stopping(w.Conditions()); len(reasons) == 0 {
			return w, done, stop, nil
		}
		select {
		case err := <-done:
			cancel()
			return nil, nil, nil, errors.Join(err, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freeOr returns addr, or if it is taken a free port of the same host.
func freeOr(ctx context.Context, addr string) string {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		host, _, _ := net.SplitHostPort(addr)
		return net.JoinHostPort(host, "0")
	}
	if err == nil {
		_ = l.Close()
	}
	return addr
}

// sample is one request of the demo and its expected outcome.
type sample struct {
	id, what, payload string
	want              string
}

func samples() []sample {
	request := func(id, machine string) string {
		return fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"Cleaned and validated, ticket SOC-4711","requestedBy":"analyst@example.com","batch":"demo"}`, id, machine)
	}
	return []sample{
		{"demo-1", "an ordinary machine", request("demo-1", demoMachine(1)), message.Succeeded},
		{"demo-2", "an ordinary machine", request("demo-2", demoMachine(2)), message.Succeeded},
		{"demo-3", "throttled first (429)", request("demo-3", demoMachine(3)), message.Succeeded},
		{"demo-4", "the answer gets lost", request("demo-4", demoMachine(4)), message.Succeeded},
		{"demo-5", "fails on the machine", request("demo-5", demoMachine(5)), message.Failed},
		{"demo-6", "a machine nobody knows", request("demo-6", demoMachine(6)), message.Rejected},
		{"", "a malformed message", `{"machineId":"not-a-machine-id"`, message.Rejected},
	}
}

func demoMachine(n int) string { return fmt.Sprintf("%039d%x", 0, n) }

// prepare adds the machines and faults of the sample to the simulated API.
func prepare(api *defendersim.Server) {
	for _, n := range []int{1, 2, 3, 4, 9} { // the last one is asked for over HTTP
		api.AddMachine(demoMachine(n), defendersim.Machine{})
	}
	api.AddMachine(demoMachine(5), defendersim.Machine{Outcome: "Failed"})
	api.Inject(defendersim.Fault{Op: "unrestrict", Machine: demoMachine(3), Times: 1, Status: http.StatusTooManyRequests, RetryAfter: 2 * time.Second})
	api.Inject(defendersim.Fault{Op: "unrestrict", Machine: demoMachine(4), Times: 1, CarriedOut: true, Cut: "before"})
	api.Inject(defendersim.Fault{Op: "unrestrict", Machine: demoMachine(6), Status: http.StatusNotFound, Code: "ResourceNotFound", Message: "Machine " + demoMachine(6) + " was not found"})
}

// showSample publishes the sample, prints each result as it comes and a table at the end. ok: all outcomes are as expected.
func showSample(ctx context.Context, b *broker.Broker, out io.Writer) (ok bool, err error) {
	waiting := map[string]sample{} // by request id
	for _, s := range samples() {
		stored, err := b.Publish(ctx, message.LaneNormal, nil, []byte(s.payload))
		if err != nil {
			return false, err
		}
		if s.id == "" {
			s.id = b.Names().Stream + ":" + strconv.FormatUint(stored.Sequence, 10)
		}
		waiting[s.id] = s
	}
	fmt.Fprintf(out, "%d requests published on %s. Their results, as they come on %s:\n\n", len(waiting), b.Names().Subject, b.Names().ResultsSubject)
	ctx, cancel := context.WithTimeoutCause(ctx, demoLimit, errors.New("not every request got its final result in time"))
	defer cancel()
	table := session.NewTable("REQUEST", "WHAT", "OUTCOME", "WHY", "CALLS")
	ok = true
	err = b.Follow(ctx, b.Names().ResultsStream, broker.FollowOptions{}, func(m broker.Message) error {
		var r message.Result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return fmt.Errorf("result %d: %w", m.Sequence, err)
		}
		fmt.Fprintln(out, "  "+session.ResultLine(m.Time, r))
		s, mine := waiting[r.RequestID]
		if !mine || !r.Final {
			return nil
		}
		delete(waiting, r.RequestID)
		verdict := r.Outcome
		if r.Outcome != s.want {
			ok, verdict = false, r.Outcome+" (expected "+s.want+")"
		}
		why := ""
		if r.Error != nil {
			why = r.Error.Code
		}
		table.Row(r.RequestID, s.what, verdict, why, strconv.Itoa(r.Attempts))
		if len(waiting) == 0 {
			return broker.StopFollow()
		}
		return nil
	})
	if err == nil && len(waiting) > 0 {
		err = context.Cause(ctx)
	}
	if err != nil {
		return false, err
	}
	fmt.Fprintln(out)
	return ok, table.Write(out)
}

func printStay(out io.Writer, w *service.Service) {
	fmt.Fprintf(out, `
Everything keeps running until you interrupt it. In another terminal:

%s
nats pub --jetstream %s '{"id":"by-hand-1","machineId":"%s","comment":"Cleaned and validated"}'
nats sub %s
%s submit --machine %s --comment "Cleaned and validated" --wait
curl -s http://%s/status
`, w.Broker.SignIn(), w.Settings.Names.Subject, demoMachine(7), w.Settings.Names.ResultsSubject, thisProgram(), demoMachine(8), w.AdminAddr)
}

// thisProgram returns how a shell calls this program. It may not be on the path: `go run` puts it into a folder of its own.
func thisProgram() string {
	path, err := os.Executable()
	if found, _ := exec.LookPath("worker"); err != nil || found == path {
		return "worker"
	}
	return session.ShellQuote(path)
}

// programToType returns how to call this program after it has ended: by then, what `go run` has built is gone.
func programToType() string {
	if path, err := os.Executable(); err == nil && strings.Contains(filepath.ToSlash(path), "/go-build") {
		return "go run ./cmd/worker"
	}
	return thisProgram()
}

// Cmd is `worker demo`.
type Cmd struct {
	Stay bool `help:"Keep everything running afterwards, at --embedded-addr, --admin-addr and --intake-addr (a free port where one is taken), and print the lines to copy for publishing by hand and for asking over HTTP."`
}
