package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
)

// TestEveryConditionIsSaidEverywhere brings each condition about, against a real broker and the simulator, and asks every
// place that shows the state of a worker; then it ends the cause, and no place says it any more. A code of health's table
// that situations does not have fails the test.
func TestEveryConditionIsSaidEverywhere(t *testing.T) {
	for _, row := range health.Table() {
		s, has := situations[row.Code]
		if !has {
			t.Errorf("%s is in the table, and not brought about here", row.Code)
			continue
		}
		if s.elsewhere != "" {
			continue
		}
		t.Run(row.Code, func(t *testing.T) {
			t.Parallel()
			place := newConditionPlace(t, s)
			end := s.begin(t, place)
			if !s.nobody {
				place.eventually(t, "/readyz to say "+row.Code, func() string { return place.notReady(row) })
			}
			if s.publish {
				place.publish(t, "waits", 900)
			}
			place.isSaid(t, row)
			if end != nil {
				end()
				place.isUnsaid(t, row.Code)
			}
		})
	}
	for code := range situations {
		if health.Lookup(code).Code != code || !slices.ContainsFunc(health.Table(), func(r health.Row) bool { return r.Code == code }) {
			t.Errorf("%s is brought about here, and not in the table", code)
		}
	}
}

// conditionPlace is a worker with a broker of its own that a test can stop, and the terminal of an operator.
type conditionPlace struct {
	*system
	situation situation
	opts      *server.Options
	broker    *server.Server
	vars      map[string]string
	js        jetstream.JetStream
	asked     string // the request that `worker why` is asked about; "": none
}

func newConditionPlace(t *testing.T, s situation) *conditionPlace {
	t.Helper()
	p := &conditionPlace{situation: s, opts: &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}}
	if s.broker != nil {
		s.broker(p.opts)
	}
	p.startBroker(t)
	t.Cleanup(func() { p.stopBroker() })
	nc, err := nats.Connect(p.broker.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if p.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if p.system, err = newSystem(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	p.vars = map[string]string{
		"NATS_URL": p.broker.ClientURL(), "WORKER_RECONCILE_DELAY": "100ms", "DEFENDER_TIMEOUT": "5s",
		"DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": filepath.Join(p.dir, "token"), "DEFENDER_API_URL": p.api.URL,
		"WORKER_RATE_PER_MINUTE": "0", "WORKER_RATE_PER_HOUR": "0",
	}
	maps.Copy(p.vars, s.vars(p.dir))
	if !s.unstarted {
		p.run(t)
	}
	return p
}

// run starts the worker, which takes requests when it returns.
func (p *conditionPlace) run(t *testing.T) {
	t.Helper()
	p.stillAfter = p.situation.stillAfter
	if err := p.start(t.Context(), p.vars); err != nil {
		t.Fatal(err)
	}
}

func (p *conditionPlace) startBroker(t *testing.T) {
	t.Helper()
	var err error
	if p.broker, err = server.NewServer(p.opts); err != nil {
		t.Fatal(err)
	}
	p.broker.Start()
	if !p.broker.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker takes no connections")
	}
	p.opts.Port = p.broker.Addr().(*net.TCPAddr).Port
}

func (p *conditionPlace) stopBroker() {
	p.broker.Shutdown()
	p.broker.WaitForShutdown()
}

func (p *conditionPlace) publish(t *testing.T, id string, machine int) {
	t.Helper()
	p.asked = id
	payload := fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"c"}`, id, MachineOf(machine))
	if _, err := p.js.Publish(t.Context(), "remediation.unrestrict", []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// command types a command at this deployment.
func (p *conditionPlace) command(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := maps.Clone(p.vars)
	env["WORKER_DATA_DIR"], env["NATS_URL"] = p.dir, p.broker.ClientURL()
	status = Run(t.Context(), args, environOf(env), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String() + stderr.String()
}

func (p *conditionPlace) get(path string) (status int, body string) {
	resp, err := http.Get("http://" + p.work.AdminAddr.String() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(all)
}

// isSaid waits until every place says a condition.
func (p *conditionPlace) isSaid(t *testing.T, row health.Row) {
	t.Helper()
	p.eventually(t, "every place to say "+row.Code, func() (wrong string) {
		if !p.situation.nobody {
			wrong = p.notSaidByReplica(row)
		}
		if wrong == "" && !p.situation.away {
			wrong = p.notSaidByCommands(t, row)
		}
		return wrong
	})
}

// codes are those of a list of conditions in JSON.
func codes(all []health.Condition) (list []string) {
	for _, c := range all {
		list = append(list, c.Code)
	}
	return list
}

// notReady says what is wrong with /readyz.
func (p *conditionPlace) notReady(row health.Row) string {
	var ready struct{ Reasons, Details []health.Condition }
	status, body := p.get("/readyz")
	if err := json.Unmarshal([]byte(body), &ready); err != nil {
		return fmt.Sprintf("/readyz: %v", err)
	}
	list, want := ready.Details, http.StatusOK
	if row.Stops {
		list, want = ready.Reasons, http.StatusServiceUnavailable
	}
	c, said := health.Has(list, row.Code)
	if status != want || !said || c.Message == "" || c.Remedy == "" || c.Since.IsZero() {
		return fmt.Sprintf("/readyz: %d %s", status, body)
	}
	return ""
}

// notSaidByReplica says what is wrong with /readyz, /status, the page and the metrics.
func (p *conditionPlace) notSaidByReplica(row health.Row) string {
	if wrong := p.notReady(row); wrong != "" {
		return wrong
	}
	value := "1"
	if row.Stops {
		value = "2"
	}
	var shown struct {
		Healthy    bool
		Conditions []health.Condition
	}
	status, body := p.get("/status")
	if json.Unmarshal([]byte(body), &shown) != nil || !slices.Contains(codes(shown.Conditions), row.Code) || shown.Healthy == row.Stops {
		return fmt.Sprintf("/status: %d %s", status, body)
	}
	if _, body = p.get("/"); !strings.Contains(body, "<code>"+row.Code+"</code>") {
		return "the page has none of it"
	}
	_, body = p.get("/metrics")
	if !strings.Contains(body, fmt.Sprintf("unrestrict_condition{code=%q} %s\n", row.Code, value)) ||
		strings.Contains(body, fmt.Sprintf("unrestrict_paused{reason=%q} 1\n", row.Code)) != row.Stops {
		return "the metrics: " + strings.Join(conditionLines.FindAllString(body, -1), "\n")
	}
	return ""
}

// names reports whether a text for people has the code, wherever its lines break.
func names(text, code string) bool { return slices.Contains(strings.Fields(text), code+":") }

var conditionLines = regexp.MustCompile(`(?m)^unrestrict_(condition|paused).*`)

// notSaidByCommands says what is wrong with `worker status` and `worker why`, and whether `worker check` is content.
func (p *conditionPlace) notSaidByCommands(t *testing.T, row health.Row) string {
	exit := 0
	if row.Stops {
		exit = 1
	}
	if status, out := p.command(t, "status"); status != exit || !names(out, row.Code) {
		return fmt.Sprintf("status: %d %s", status, out)
	}
	var shown struct{ Conditions []health.Condition }
	if status, out := p.command(t, "status", "--json"); json.Unmarshal([]byte(out), &shown) != nil || !slices.Contains(codes(shown.Conditions), row.Code) {
		return fmt.Sprintf("status --json: %d %s", status, out)
	}
	if p.asked != "" {
		if status, out := p.command(t, "why", p.asked); status != 0 || !names(out, row.Code) || strings.Contains(out, "its next attempt") {
			return fmt.Sprintf("why: %d %s", status, out)
		}
	}
	if status, out := p.command(t, "check"); row.Code != health.NoWorker && !names(out, row.Code) || row.Stops && !p.situation.meant && status != 1 {
		return fmt.Sprintf("check: %d %s", status, out)
	}
	return ""
}

// isUnsaid waits until nothing says the code any more.
func (p *conditionPlace) isUnsaid(t *testing.T, code string) {
	t.Helper()
	p.eventually(t, "no place to say "+code, func() string {
		var shown struct{ Reasons, Details, Conditions []health.Condition }
		for _, path := range []string{"/readyz", "/status"} {
			status, body := p.get(path)
			if json.Unmarshal([]byte(body), &shown) != nil || status != http.StatusOK || slices.Contains(codes(slices.Concat(shown.Reasons, shown.Details, shown.Conditions)), code) {
				return fmt.Sprintf("%s: %d %s", path, status, body)
			}
		}
		if _, body := p.get("/metrics"); regexp.MustCompile(`(?m)^unrestrict_(condition|paused)\{\w+="` + code + `"\} [12]$`).MatchString(body) {
			return "the metrics: " + strings.Join(conditionLines.FindAllString(body, -1), "\n")
		}
		if status, out := p.command(t, "status"); status != 0 || names(out, code) {
			return fmt.Sprintf("status: %d %s", status, out)
		}
		return ""
	})
}

func (p *conditionPlace) eventually(t *testing.T, what string, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		text := wrong()
		if text == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("expected %s; %s", what, text)
		}
	}
}

// situation is how a condition is brought about.
type situation struct {
	env        map[string]string
	files      map[string]string // variable: content of the file that it names
	broker     func(*server.Options)
	stillAfter time.Duration
	// begin brings it about, and returns what ends it; nil: nothing that could be done here.
	begin   func(*testing.T, *conditionPlace) (end func())
	publish bool // a request is published behind it, which waits for it

	elsewhere string // the test of another package that brings it about

	unstarted bool // the worker is not started before begin
	nobody    bool // no replica runs that could be asked
	away      bool // the broker can't be reached, so that commands say that alone
	meant     bool // `worker check` does not fail for it
}

func (s situation) vars(dir string) map[string]string {
	vars := maps.Clone(s.env)
	if vars == nil {
		vars = map[string]string{}
	}
	for name, content := range s.files {
		path := filepath.Join(dir, name)
		_ = os.WriteFile(path, []byte(strings.ReplaceAll(content, "$ANN", annsKey())), 0o600)
		vars[name] = path
	}
	return vars
}

// answering has the API answer every call so until it ends.
func answering(faults ...defendersim.Fault) func(*testing.T, *conditionPlace) func() {
	return func(t *testing.T, p *conditionPlace) func() {
		for _, f := range faults {
			p.sim.Inject(f)
		}
		for n := range 4 {
			p.publish(t, fmt.Sprint("met", n), n+1)
		}
		return p.sim.ClearFaults
	}
}

const missingRole = "Missing application roles. API required roles: Machine.RestrictExecution, application roles: ."

// situations has one for each row of the table.
var situations = map[string]situation{
	health.Broker: {away: true, begin: func(t *testing.T, p *conditionPlace) func() {
		p.stopBroker()
		return func() { p.startBroker(t) }
	}},
	health.Paused: {publish: true, meant: true, begin: func(t *testing.T, p *conditionPlace) func() {
		p.command(t, "pause", "--reason", "freeze")
		return func() { p.command(t, "resume") }
	}},
	health.Token: {publish: true, env: map[string]string{"DEFENDER_AUTH": "token-file"}, begin: func(t *testing.T, p *conditionPlace) func() {
		path := filepath.Join(p.dir, "token")
		p.write(t, path, "")
		return func() { p.write(t, path, p.sim.IssueToken(time.Hour)) }
	}},
	health.Unauthorized:    {begin: answering(defendersim.Fault{Status: 401, Code: "Unauthorized", Message: "no"})},
	health.Forbidden:       {begin: answering(defendersim.Fault{Status: 403, Code: "Forbidden", Message: missingRole})},
	health.DisabledFeature: {begin: answering(defendersim.Fault{Status: 400, Code: "DisabledFeature", Message: "no licence"})},
	health.Redirect:        {begin: answering(defendersim.Fault{Status: 302, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}})},
	health.NotDefender:     {begin: answering(defendersim.Fault{Status: 403, Body: []byte("<html>blocked</html>")})},
	health.Other:           {begin: answering(defendersim.Fault{Status: 403, Code: "SomethingNew", Message: missingRole})},
	health.UnclearAnswers:  {begin: answering(defendersim.Fault{Status: 503, Code: "ServiceUnavailable", Message: "later"})},
	health.Unreachable: {begin: func(t *testing.T, p *conditionPlace) func() {
		addr := p.api.Listener.Addr().String()
		p.api.CloseClientConnections()
		p.api.Close()
		for n := range 4 {
			p.publish(t, fmt.Sprint("met", n), n+1)
		}
		return func() {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			p.api = httptest.NewUnstartedServer(p.sim)
			_ = p.api.Listener.Close()
			p.api.Listener = l
			p.api.Start()
		}
	}},
	health.NoWorker: {nobody: true, publish: true, meant: true, begin: func(t *testing.T, p *conditionPlace) func() {
		p.stop()
		return func() { p.run(t) }
	}},
	health.NotUnderstood: {nobody: true, begin: func(t *testing.T, p *conditionPlace) func() {
		kv, err := p.js.KeyValue(t.Context(), broker.StateBucket)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := kv.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(keys, func(key string) bool { return strings.HasPrefix(key, "replica.") })
		stranger := keys[i][:strings.LastIndex(keys[i], ".")] + ".stranger"
		if _, err := kv.Put(t.Context(), stranger, []byte("a later format")); err != nil {
			t.Fatal(err)
		}
		return func() { _ = kv.Purge(t.Context(), stranger) }
	}},
	health.MayNotList: {begin: func(t *testing.T, p *conditionPlace) func() {
		p.sim.Inject(defendersim.Fault{Op: "list", Status: 403, Code: "Forbidden", Message: "Missing application roles. API required roles: Machine.Read.All, application roles: ."})
		p.sim.Inject(defendersim.Fault{Op: "unrestrict", Cut: "before", CarriedOut: true, Times: 1})
		p.publish(t, "lost", 1)
		return p.sim.ClearFaults
	}},
	health.WaitingForQuota: {env: map[string]string{"WORKER_RATE_PER_MINUTE": "2"}, begin: func(t *testing.T, p *conditionPlace) func() {
		for n := range 4 {
			p.publish(t, fmt.Sprint("quota", n), n+1)
		}
		return nil // a minute
	}},
	health.Signers: {begin: breaking("WORKER_TRUSTED_SIGNERS_FILE"), files: map[string]string{"WORKER_TRUSTED_SIGNERS_FILE": "$ANN ann\n"}},
	health.Policy:  {begin: breaking("WORKER_POLICY_FILE"), files: map[string]string{"WORKER_POLICY_FILE": "default:\n  ticket_required: true\n", "WORKER_TRUSTED_SIGNERS_FILE": "$ANN ann\n"}},
	health.MaxPayload: {broker: func(o *server.Options) { o.MaxPayload = 100_000 }, begin: func(t *testing.T, p *conditionPlace) func() {
		return func() {
			p.stopBroker()
			p.opts.MaxPayload = 1 << 20
			p.startBroker(t)
		}
	}},
	health.LiveReplicas: {env: map[string]string{"WORKER_DRY_RUN": "true"}, begin: func(t *testing.T, p *conditionPlace) func() {
		live, err := newSystem(t.TempDir())
		if err == nil {
			err = live.start(t.Context(), map[string]string{"NATS_URL": p.broker.ClientURL()})
		}
		t.Cleanup(live.close)
		if err != nil {
			t.Fatal(err)
		}
		return func() { live.stop() }
	}},
	health.Settings: {unstarted: true, begin: func(t *testing.T, p *conditionPlace) func() {
		if _, err := p.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, MaxAge: time.Hour}); err != nil {
			t.Fatal(err)
		}
		p.run(t)
		return func() { p.drop(t, "REMEDIATION_RESULTS") } // made anew as it should be
	}},
	health.Missing: {publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
		p.stop()
		p.vars["WORKER_PROVISION"] = "false"
		p.run(t)
		was := p.drop(t, "REMEDIATION_DEADLETTER")
		return func() {
			if _, err := p.js.CreateStream(t.Context(), was); err != nil {
				t.Error(err)
			}
		}
	}},
	health.Unfit: {publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
		return p.consumer(t, func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 3 })
	}},
	health.AckPending: {env: map[string]string{"WORKER_BACKOFF_INITIAL": "40s"}, begin: func(t *testing.T, p *conditionPlace) func() {
		undo := p.consumer(t, func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1 })
		p.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: 400, Code: "ActiveRequestAlreadyExists", Message: "no", Times: 1}) // it is tried again after its backoff
		p.publish(t, "out", 1)
		p.publish(t, "behind", 2)
		return undo
	}},
	health.JetStream: {unstarted: true, away: true, begin: func(t *testing.T, p *conditionPlace) func() {
		slow := &slowLine{to: p.opts.Port}
		p.vars["NATS_URL"] = slow.listen(t)
		p.run(t)
		slow.delay.Store(int64(3 * time.Second)) // an answer takes longer than it is waited for, and the connection stands
		return func() { slow.delay.Store(0) }
	}},
	health.ConsumerPaused: {publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
		if _, err := p.js.PauseConsumer(t.Context(), "REMEDIATION", "unrestrict-worker", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		return func() {
			if _, err := p.js.ResumeConsumer(t.Context(), "REMEDIATION", "unrestrict-worker"); err != nil {
				t.Error(err)
			}
		}
	}},
	health.RateUnknown: {publish: true, env: map[string]string{"WORKER_RATE_PER_MINUTE": "100"}, begin: func(t *testing.T, p *conditionPlace) func() {
		p.drop(t, "UNRESTRICT_RATE_MINUTE")
		return nil // a minute and what it needs besides
	}},
	health.Throttled: {env: map[string]string{"WORKER_RATE_PER_MINUTE": "100"}, begin: func(t *testing.T, p *conditionPlace) func() {
		p.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: 429, Code: "429", RetryAfter: 15 * time.Minute, Times: 1})
		p.publish(t, "throttled", 1)
		return func() { p.command(t, "resume", "--closure", "--yes") }
	}},
	health.LedgerLost: {begin: func(t *testing.T, p *conditionPlace) func() {
		p.drop(t, "KV_UNRESTRICT_LEDGER")
		return nil // an hour
	}},
	health.DiskNearlyFull: {elsewhere: "TestFullness"},
	health.SlowBroker: {unstarted: true, env: map[string]string{"WORKER_RATE_PER_MINUTE": "100"}, begin: func(t *testing.T, p *conditionPlace) func() {
		slow := &slowLine{to: p.opts.Port}
		p.vars["NATS_URL"] = slow.listen(t)
		p.run(t)
		slow.delay.Store(int64(400 * time.Millisecond))
		p.publish(t, "slow", 1)
		return func() { slow.delay.Store(0) }
	}},
	health.Store: {begin: func(t *testing.T, p *conditionPlace) func() {
		defer p.publish(t, "unwritten", 1)
		return p.limit(t, "KV_UNRESTRICT_LEDGER", func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	}},
	health.StreamFull: {publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
		p.fill(t, "remediation.results")
		return p.limit(t, "REMEDIATION_RESULTS", func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew })
	}},
	health.NotPublished: {begin: func(t *testing.T, p *conditionPlace) func() {
		undo := p.limit(t, "REMEDIATION_RESULTS", func(c *jetstream.StreamConfig) { // full for one of two subjects: nobody can see that from outside
			c.Subjects = append(c.Subjects, "others.results")
			c.MaxMsgsPerSubject, c.DiscardNewPerSubject, c.Discard = 1, true, jetstream.DiscardNew
		})
		p.fill(t, "others.results")
		p.fill(t, "remediation.results")
		p.publish(t, "waits", 1)
		return undo
	}},
	health.Unpublishable: {begin: func(t *testing.T, p *conditionPlace) func() {
		undo := p.limit(t, "REMEDIATION_RESULTS", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 600 })
		time.Sleep(6 * time.Second) // the worker has seen it
		p.publish(t, "large", 1)
		return undo
	}},
	health.ListRefused: {begin: func(t *testing.T, p *conditionPlace) func() {
		p.sim.Inject(defendersim.Fault{Op: "list", Status: 400, Code: "BadRequest", Message: "The query specified in the URI is not valid."})
		p.sim.Inject(defendersim.Fault{Op: "unrestrict", Cut: "before", CarriedOut: true, Times: 1})
		p.publish(t, "lost", 1)
		return p.sim.ClearFaults
	}},
	health.NotFollowing: {stillAfter: time.Second, begin: func(t *testing.T, p *conditionPlace) func() {
		p.sim.Inject(defendersim.Fault{Op: "list", Hang: true})
		p.publish(t, "followed", 1)
		return p.sim.ClearFaults
	}},
	health.StandingStill: {stillAfter: time.Second, env: map[string]string{"WORKER_CONCURRENCY": "1", "DEFENDER_TIMEOUT": "50s"}, begin: func(t *testing.T, p *conditionPlace) func() {
		p.sim.Inject(defendersim.Fault{Op: "unrestrict", Latency: 25 * time.Second, Times: 1})
		p.publish(t, "hangs", 1)
		p.publish(t, "behind", 2)
		return func() {} // the answer comes
	}},
}

// annsKey is some public nkey.
var annsKey = sync.OnceValue(func() string {
	pair, _ := nkeys.CreateUser()
	key, _ := pair.PublicKey()
	return key
})

// breaking makes a file useless, and then right again.
func breaking(variable string) func(*testing.T, *conditionPlace) func() {
	return func(t *testing.T, p *conditionPlace) func() {
		right, err := os.ReadFile(p.vars[variable])
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, p.vars[variable], "{ no such thing")
		return func() { p.write(t, p.vars[variable], string(right)) }
	}
}

// write replaces a file as a careful program does.
func (p *conditionPlace) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// drop deletes a stream, and returns how it was.
func (p *conditionPlace) drop(t *testing.T, name string) jetstream.StreamConfig {
	t.Helper()
	stream, err := p.js.Stream(t.Context(), name)
	if err == nil {
		err = p.js.DeleteStream(t.Context(), name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

// fill stores a message that is nobody's.
func (p *conditionPlace) fill(t *testing.T, subject string) {
	t.Helper()
	if _, err := p.js.Publish(t.Context(), subject, []byte("{}")); err != nil {
		t.Fatal(err)
	}
}

// consumer gives the consumer other settings, and returns what gives it its own again.
func (p *conditionPlace) consumer(t *testing.T, change func(*jetstream.ConsumerConfig)) (undo func()) {
	t.Helper()
	consumer, err := p.js.Consumer(t.Context(), "REMEDIATION", "unrestrict-worker")
	if err != nil {
		t.Fatal(err)
	}
	was := consumer.CachedInfo().Config
	is := was
	change(&is)
	if _, err := p.js.UpdateConsumer(t.Context(), "REMEDIATION", is); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := p.js.UpdateConsumer(t.Context(), "REMEDIATION", was); err != nil {
			t.Error(err)
		}
	}
}

// limit gives a stream other settings, and returns what gives it its own again.
func (p *conditionPlace) limit(t *testing.T, name string, change func(*jetstream.StreamConfig)) (undo func()) {
	t.Helper()
	stream, err := p.js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	was := stream.CachedInfo().Config
	is := was
	change(&is)
	if _, err := p.js.UpdateStream(t.Context(), is); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := p.js.UpdateStream(t.Context(), was); err != nil {
			t.Error(err)
		}
	}
}

// slowLine is a way to the broker that takes its time.
type slowLine struct {
	to    int
	delay atomic.Int64 // of each piece, in each direction
}

func (l *slowLine) listen(t *testing.T) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var lines sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); lines.Wait() })
	lines.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			broker, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", l.to))
			if err != nil {
				_ = client.Close()
				continue
			}
			lines.Go(func() { l.carry(client, broker) })
			lines.Go(func() { l.carry(broker, client) })
		}
	})
	return "nats://" + listener.Addr().String()
}

func (l *slowLine) carry(from, to net.Conn) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	for piece := make([]byte, 1<<16); ; {
		n, err := from.Read(piece)
		time.Sleep(time.Duration(l.delay.Load()))
		if _, wrong := to.Write(piece[:n]); err != nil || wrong != nil {
			return
		}
	}
}
