package cli

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
)

// situation is how a condition is brought about.
type situation struct {
	env        map[string]string
	files      map[string]string // variable: content of the file that it names
	broker     func(*server.Options)
	stillAfter time.Duration
	// begin brings it about, and returns what ends it; nil: nothing that could be done here.
	begin   func(*testing.T, *conditionPlace) (end func())
	publish bool // a request is published behind it, which waits for it
	pulls   bool // pulls of before can still take that request: it waits until there are none

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
		var keys []string
		i := -1
		p.eventually(t, "the replica's presence", func() string {
			keys, err = kv.Keys(t.Context())
			if i = slices.IndexFunc(keys, func(key string) bool { return strings.HasPrefix(key, "replica.") }); i < 0 {
				return fmt.Sprint(keys, err)
			}
			return ""
		})
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
		for n := range 40 { // for twenty minutes, however slow this machine is
			p.publish(t, fmt.Sprint("quota", n), n+1)
		}
		return nil
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
	health.HeldElsewhere: {begin: func(t *testing.T, p *conditionPlace) func() {
		undo := p.consumer(t, func(c *jetstream.ConsumerConfig) { c.AckWait = 24 * time.Hour })
		p.isTakenByAnother(t)
		return undo
	}},
	health.Denied: {publish: true, pulls: true, env: workersOwn().env, broker: workersOwn().broker, begin: denying("$JS.API.CONSUMER.MSG.NEXT.>")},
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
	health.OutOfTouch:        {publish: true, begin: startedAnewDenying("$JS.API.CONSUMER.CREATE.KV_UNRESTRICT_STATE.>")},
	health.DiskNearlyFull:    {elsewhere: "TestFullness"},
	health.ControlUnreadable: {elsewhere: "TestControlUnreadable"},
	health.OrdersLost: {publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
		if _, err := p.js.Publish(t.Context(), "remediation.control", []byte(`{"verb":"pause","batch":"monday"}`)); err != nil {
			t.Fatal(err)
		}
		kv, err := p.js.KeyValue(t.Context(), "UNRESTRICT_STATE")
		if err != nil {
			t.Fatal(err)
		}
		p.eventually(t, "the order to be recorded", func() string {
			_, err := kv.Get(t.Context(), "orders."+ledger.DeploymentDigest("REMEDIATION"))
			if err != nil {
				return err.Error()
			}
			return ""
		})
		p.drop(t, "REMEDIATION_CONTROL")
		return func() { p.command(t, "resume", "--orders", "--yes") }
	}},
	health.SlowBroker: {unstarted: true, env: map[string]string{"WORKER_RATE_PER_MINUTE": "100"}, begin: func(t *testing.T, p *conditionPlace) func() {
		slow := &slowLine{to: p.opts.Port}
		p.vars["NATS_URL"] = slow.listen(t)
		p.run(t)
		slow.delay.Store(int64(530 * time.Millisecond)) // two answers make a grant, which is too old after budget.StartLimit
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
	health.StillUnclear: {env: map[string]string{"WORKER_RECONCILE_DELAY": "1s"}, begin: func(t *testing.T, p *conditionPlace) func() {
		p.sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: MachineOf(1), Status: 503, Code: "ServiceUnavailable", Message: "later"})
		p.publish(t, "unclear", 1)
		p.eventually(t, "it to be said while nobody is served", func() string { return p.notReady(unclearForFew()) })
		p.publish(t, "another", 2)
		p.asked = "unclear"
		return p.sim.ClearFaults
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

// unclearForFew is what is said while fewer machines get no clear answer than trip the breaker, and no other is served.
func unclearForFew() health.Row {
	row := health.Lookup(health.UnclearAnswers)
	row.Stops = false
	return row
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
