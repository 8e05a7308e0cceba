package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/message"
)

// process is a command as a user starts it in a terminal.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner // what it says
	rest  chan string    // what it said after until was done with it
}

// start runs a command whose output, or log, is then read with until.
func start(t *testing.T, env, words []string, log bool) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), words[0], words[1:]...), rest: make(chan string, 1)}
	p.cmd.Env = env
	pipe := p.cmd.StdoutPipe
	if log {
		pipe = p.cmd.StderrPipe
	}
	out, err := pipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	return p
}

// until reads up to the line that done likes, and lets the rest be read in the background.
func (p *process) until(t *testing.T, done func(line string) bool) {
	t.Helper()
	for p.lines.Scan() {
		if done(p.lines.Text()) {
			go func() {
				var rest strings.Builder
				for p.lines.Scan() {
					rest.WriteString(p.lines.Text() + "\n")
				}
				p.rest <- rest.String()
			}()
			return
		}
	}
	t.Fatalf("%q ended: %v", p.cmd.Args, p.cmd.Wait())
}

// stop asks it to end and returns what it said last.
func (p *process) stop(t *testing.T) string {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	rest := <-p.rest
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%q: %v\n%s", p.cmd.Args, err, rest)
	}
	return rest
}

// startSimulator is `worker simulate`, and the variables that it tells to paste.
func startSimulator(t *testing.T, env, words []string) (p *process, pasted []string) {
	t.Helper()
	p = start(t, env, append(words, "--addr", "127.0.0.1:0"), false)
	p.until(t, func(line string) bool {
		if v, found := strings.CutPrefix(line, "export "); found {
			pasted = append(pasted, v)
		}
		return strings.HasPrefix(line, "Interrupt")
	})
	return p, pasted
}

// startRun is `worker run`, once it takes requests; the URL of its broker, and the address of its admin server.
func startRun(t *testing.T, env, words []string) (p *process, broker, admin string) {
	t.Helper()
	p = start(t, env, words, true)
	p.until(t, func(line string) bool {
		var entry struct{ Msg, Broker, Addr string }
		if json.Unmarshal([]byte(line), &entry) != nil {
			t.Errorf("%q logs %s", words, line)
		}
		switch entry.Msg {
		case "admin server listens":
			admin = entry.Addr
		case "taking requests":
			broker = entry.Broker
		}
		return broker != ""
	})
	return p, broker, admin
}

// succeeds runs a command to its end.
func succeeds(t *testing.T, env []string, words ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", words, err, out)
	}
	return string(out)
}

// terminal is the environment of somebody who has set nothing, but for a folder and ports of the test's own, and haste.
func terminal(dir string, more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, promptly,
		"WORKER_DATA_DIR=" + filepath.Join(dir, "data"), "WORKER_EMBEDDED_ADDR=127.0.0.1:0", "WORKER_ADMIN_ADDR=127.0.0.1:0", "WORKER_INTAKE_ADDR=127.0.0.1:0",
		"WORKER_POLL_INTERVAL=250ms",
	}, more...)
}

// TestBuild types what the README says before the program can be called by its name, in this repository's folder.
func TestBuild(t *testing.T) {
	_, section, _ := strings.Cut(pages(t)["README.md"], "## Build\n")
	steps := blocks(section, "sh")
	if len(steps) == 0 {
		t.Fatal("the README does not say how to build")
	}
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "cd '"+root+"'\n"+steps[0]+"command -v worker && worker version")
	out, err := cmd.CombinedOutput()
	if want := filepath.Join(root, "bin", "worker") + "\nworker "; err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, want %q in\n%s", err, want, out)
	}
}

// TestQuickStart does what the README says, in its terminals.
func TestQuickStart(t *testing.T) {
	_, section, found := strings.Cut(pages(t)["README.md"], "## Quick start\n")
	section, _, ends := strings.Cut(section, "\n### From Python")
	steps := blocks(section, "sh")
	if !found || !ends || len(steps) != 4 {
		t.Fatalf("the README's quick start has other steps: %q", steps)
	}
	env := terminal(t.TempDir())
	sim, pasted := startSimulator(t, env, shellCommands(steps[0])[0])
	run, broker, _ := startRun(t, append(env, pasted...), shellCommands(steps[1])[0])
	at, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}

	for _, words := range shellCommands(steps[2]) {
		if out := succeeds(t, append(env, "WORKER_EMBEDDED_ADDR="+at.Host), words...); !strings.Contains(out, "succeeded") {
			t.Errorf("%q: %s", words, out)
		}
	}

	fourth := shellCommands(steps[3])
	words := fourth[1]
	folder := filepath.Dir(lastOf(env, "WORKER_DATA_DIR"))
	token := succeeds(t, append(env, "PWD="+folder), "sh", "-c", "cd "+folder+"\n"+strings.SplitN(steps[3], "\n", 2)[0]+"\nprintf %s \"$NATS_TOKEN\"")
	nc, err := nats.Connect(broker, nats.Token(token))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), words[len(words)-2], []byte(words[len(words)-1])); err != nil {
		t.Fatal(err)
	}
	if r := finalResult(t, js, "INC-4711-2", 1); r.Outcome != message.Succeeded {
		t.Errorf("what was published with nats pub ended %s: %+v", r.Outcome, r.Error)
	}

	// The runbook deals with a dead letter of this id.
	late := `{"id":"INC-4712-1","machineId":"1e5bc9d7e413ddd7902c2932e418702b84d0cc07","comment":"c","expiresAt":"2020-01-01T00:00:00Z"}`
	if _, err := js.Publish(t.Context(), words[len(words)-2], []byte(late)); err != nil {
		t.Fatal(err)
	}
	finalResult(t, js, "INC-4712-1", 1)
	nc.Close()
	runPages(t, append(env, append(pasted, "WORKER_EMBEDDED_ADDR="+at.Host)...))
	run.stop(t)
	sim.stop(t)
}

// runPages types what all pages tell to type, where there is a worker to talk to.
func runPages(t *testing.T, env []string) {
	t.Helper()
	all := pages(t)
	t.Chdir(t.TempDir())
	seedFile(t, "seed.nk")
	writeFiles(t, map[string]string{"machines.csv": blocks(all["docs/integrations.md"], "csv")[0]})
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if name != approvalsPage { // see TestApprovalsPage
			runBlocks(t, env, name, blocks(all[name], "sh"))
		}
	}
}

func runBlocks(t *testing.T, env []string, name string, blocks []string) {
	t.Helper()
	for _, block := range blocks {
		for _, words := range shellCommands(block) {
			switch {
			case strings.Contains(block, "export "), words[0] != "worker", slices.Contains([]string{"run", "demo", "simulate", "intake"}, words[1]):
				continue
			case words[1] == "results":
				words = append(words, "--follow=false")
			}
			cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			if paused := words[1] == "status" && strings.Contains(string(out), "paused by an operator"); err != nil && !paused {
				t.Errorf("%s: %q: %v\n%s", name, words, err, out)
			}
		}
	}
}

// finalResult waits for the final result of a run.
func finalResult(t *testing.T, js jetstream.JetStream, id string, run int) (r message.Result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cons, err := js.OrderedConsumer(ctx, "REMEDIATION_RESULTS", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	it, err := cons.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Stop()
	for r.RequestID != id || r.Run != run || !r.Final {
		msg, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("no final result of %s, run %d: %v", id, run, err)
		}
		r = message.Result{}
		if err := json.Unmarshal(msg.Data(), &r); err != nil {
			t.Fatal(err)
		}
	}
	return r
}
