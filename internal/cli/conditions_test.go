package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
			if row.Code != health.SlowBroker { // its answers come just before the time-out, which leaves no time to wait for a processor
				t.Parallel()
			}
			s.isSaidEverywhere(t, row)
		})
	}
	for code := range situations {
		if health.Lookup(code).Code != code || !slices.ContainsFunc(health.Table(), func(r health.Row) bool { return r.Code == code }) {
			t.Errorf("%s is brought about here, and not in the table", code)
		}
	}
}

// isSaidEverywhere brings it about, and ends it.
func (s situation) isSaidEverywhere(t *testing.T, row health.Row) {
	t.Helper()
	place := newConditionPlace(t, s)
	end := s.begin(t, place)
	if !s.nobody {
		place.eventually(t, "/readyz to say "+row.Code, func() string { return place.notReady(row) })
	}
	if s.pulls {
		place.noPullsUnderWay(t)
	}
	if s.publish {
		place.publish(t, "waits", 900)
	}
	place.isSaid(t, row)
	if end != nil {
		end()
		place.isUnsaid(t, row.Code)
	}
}

// noPullsUnderWay waits until no pull of before the condition can still take a message.
func (p *conditionPlace) noPullsUnderWay(t *testing.T) {
	t.Helper()
	p.eventually(t, "no pull to be under way", func() string {
		stream, err := p.js.Stream(t.Context(), "REMEDIATION")
		if err != nil {
			return err.Error()
		}
		for c := range stream.ListConsumers(t.Context()).Info() {
			if c.NumWaiting > 0 {
				return fmt.Sprintf("%d pulls of %s wait", c.NumWaiting, c.Name)
			}
		}
		return ""
	})
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
	var stdout, stderr watched
	env := maps.Clone(p.vars)
	env["WORKER_DATA_DIR"], env["NATS_URL"] = p.dir, p.broker.ClientURL()
	delete(env, "NATS_USER") // which is the worker's alone
	delete(env, "NATS_PASSWORD")
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
	if json.Unmarshal([]byte(body), &shown) != nil || !slices.Contains(codes(shown.Conditions), row.Code) || shown.Healthy != healthy(row) {
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

// healthy reports whether the status is, with this condition alone.
func healthy(row health.Row) bool {
	return health.Healthy([]health.Condition{health.New(row.Code, "")})
}

// names reports whether a text for people has the code, wherever its lines break.
func names(text, code string) bool { return slices.Contains(strings.Fields(text), code+":") }

var conditionLines = regexp.MustCompile(`(?m)^unrestrict_(condition|paused).*`)

// notSaidByCommands says what is wrong with `worker status` and `worker why`, and whether `worker check` is content.
func (p *conditionPlace) notSaidByCommands(t *testing.T, row health.Row) string {
	exit := 1
	if healthy(row) {
		exit = 0
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
