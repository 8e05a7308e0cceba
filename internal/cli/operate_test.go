package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// TestOperateScripts types the commands of those who run workers. Besides those of testscript there are
//
//	worker-runs [VARIABLE=VALUE...]   starts a worker, or starts it anew with other settings
//	worker-stops
//	broker-runs [FILE]                starts a broker apart from the worker, at NATS_URL; FILE: what its user may do
//	signers NAME...                   makes keys: NAME.nk, the public one in $NAME; people.txt says whose they are, others.txt wrongly
//	token ROLE...                     gives the worker a token with these roles alone
//	refuses ID, allows                makes the API refuse the machine; any machine is taken again
//	fails ID                          makes the API answer 503 for the machine
//	throttles ID SECONDS              makes the API answer 429 for the machine, once
//	publishes FILE [HEADER=VALUE...]  puts a message on the request subject
//	final ID RUN OUTCOME              waits for a final result
//	letters N                         waits until there are so many dead letters
//	until-stdout STATUS REGEXP COMMAND... repeats a command until its exit status and output are so
func TestOperateScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/operate", UpdateScripts: *update, RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s, err := newSystem(env.WorkDir)
			env.Defer(s.close)
			env.Values[systemKey{}] = s
			env.Vars = append(env.Vars, promptly)
			env.Setenv("DEFENDER_API_URL", s.api.URL)
			env.Setenv("DEFENDER_AUTH", "token-file")
			env.Setenv("DEFENDER_TOKEN_FILE", filepath.Join(env.WorkDir, "token"))
			for n, name := range []string{"M1", "M2", "M3"} {
				env.Setenv(name, MachineOf(n+1))
			}
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "publishes": scriptPublish, "final": scriptFinal, "letters": scriptLetters, "until-stdout": scriptUntil,
			"worker-runs": func(ts *testscript.TestScript, _ bool, args []string) {
				more := map[string]string{}
				for _, arg := range args {
					name, value, _ := strings.Cut(arg, "=")
					more[name] = value
				}
				systemOf(ts).stop()
				ts.Check(systemOf(ts).start(context.WithoutCancel(t.Context()), more))
				ts.Setenv("WORKER_EMBEDDED_ADDR", systemOf(ts).addr())
				ts.Setenv("WORKER_DATA_DIR", systemOf(ts).dataDir())
			},
			"broker-runs":  scriptBroker,
			"token":        scriptToken,
			"signers":      scriptSigners,
			"worker-stops": func(ts *testscript.TestScript, _ bool, _ []string) { systemOf(ts).stop() },
			"refuses":      func(ts *testscript.TestScript, _ bool, args []string) { systemOf(ts).refuse(args[0]) },
			"fails": func(ts *testscript.TestScript, _ bool, args []string) {
				systemOf(ts).sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: args[0], Status: http.StatusServiceUnavailable})
			},
			"throttles": func(ts *testscript.TestScript, _ bool, args []string) {
				after, err := time.ParseDuration(args[1] + "s")
				ts.Check(err)
				systemOf(ts).sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: args[0], Status: http.StatusTooManyRequests, RetryAfter: after, Times: 1})
			},
			"allows": func(ts *testscript.TestScript, _ bool, _ []string) { systemOf(ts).sim.ClearFaults() },
		},
	})
}

func systemOf(ts *testscript.TestScript) *system { return ts.Value(systemKey{}).(*system) }

func scriptContext(ts *testscript.TestScript) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second) // what awaits approval is looked at once a minute
	ts.Defer(cancel)
	return ctx
}

func scriptPublish(ts *testscript.TestScript, _ bool, args []string) {
	h := message.Header{}
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		h[name] = []string{value}
	}
	payload := bytes.TrimSuffix([]byte(ts.ReadFile(args[0])), []byte("\n"))
	payload = bytes.ReplaceAll(payload, []byte("BINARY"), []byte{0, 1, 0xff, '{'})
	for _, name := range []string{"M1", "M2", "M3"} {
		payload = bytes.ReplaceAll(payload, []byte("$"+name), []byte(ts.Getenv(name)))
	}
	_, err := systemOf(ts).work.Broker.Publish(scriptContext(ts), message.LaneNormal, h, payload)
	ts.Check(err)
}

func scriptFinal(ts *testscript.TestScript, _ bool, args []string) {
	b := systemOf(ts).work.Broker
	found := errors.New("no such result in time")
	err := b.Follow(scriptContext(ts), b.Names().ResultsStream, broker.FollowOptions{}, func(m broker.Message) error {
		var r message.Result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return err
		}
		if r.Final && r.RequestID == args[0] && string(rune('0'+r.Run)) == args[1] {
			if found = nil; r.Outcome != args[2] {
				ts.Fatalf("%s run %s is %s: %+v", args[0], args[1], r.Outcome, r.Error)
			}
			return broker.StopFollow()
		}
		return nil
	})
	ts.Check(errors.Join(err, found))
}

func scriptLetters(ts *testscript.TestScript, _ bool, args []string) {
	ctx := scriptContext(ts)
	for {
		n := 0
		for _, err := range systemOf(ts).work.Broker.DeadLetters(ctx) {
			ts.Check(err)
			n++
		}
		if string(rune('0'+n)) == args[0] {
			return
		}
		if !service.Pause(ctx, 20*time.Millisecond) {
			ts.Fatalf("there are %d dead letters", n)
		}
	}
}

func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	ctx := scriptContext(ts)
	for {
		status := "0"
		if err := ts.Exec(args[2], args[3:]...); err != nil {
			status = "1"
		}
		out := ts.ReadFile("stdout")
		if status == args[0] && strings.Contains(out, args[1]) {
			return
		}
		if !service.Pause(ctx, 50*time.Millisecond) {
			ts.Fatalf("exit status %s and\n%s", status, out)
		}
	}
}

func scriptBroker(ts *testscript.TestScript, _ bool, args []string) {
	dir, permissions := ts.MkAbs("nats"), "publish: \">\""
	if len(args) > 0 {
		permissions = ts.ReadFile(args[0])
	}
	ts.Check(os.MkdirAll(dir, 0o700))
	file := filepath.Join(dir, "nats.conf")
	conf := fmt.Sprintf("jetstream: { store_dir: %q }\nauthorization: { users: [{user: admin, password: p}, {user: worker, password: p, permissions: {\n%s\n}}] }\n", dir, permissions)
	ts.Check(os.WriteFile(file, []byte(conf), 0o600))
	opts, err := server.ProcessConfigFile(file)
	ts.Check(err)
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(opts)
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		ts.Fatalf("the broker takes no connections")
	}
	addr := strings.TrimPrefix(s.ClientURL(), "nats://")
	ts.Setenv("BROKER", addr)
	ts.Setenv("NATS_URL", "nats://worker:p@"+addr)
	ts.Setenv("ADMIN_URL", "nats://admin:p@"+addr)
}

func scriptSigners(ts *testscript.TestScript, _ bool, names []string) {
	var people, others strings.Builder
	for i, name := range names {
		key, err := writeSeed(ts.MkAbs(name + ".nk"))
		ts.Check(err)
		ts.Setenv(strings.ToUpper(name), key)
		fmt.Fprintln(&people, key, name)
		fmt.Fprintln(&others, key, names[(i+1)%len(names)])
	}
	ts.Check(os.WriteFile(ts.MkAbs("people.txt"), []byte(people.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("others.txt"), []byte(others.String()), 0o600))
}

func scriptToken(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(systemOf(ts).sim.IssueToken(time.Hour, args...)), 0o600))
}
