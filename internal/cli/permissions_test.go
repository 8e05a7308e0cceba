package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// TestPermissions runs a broker from the files in deploy/nats, with each way to sign in, and on it a worker and the
// commands, each as its role: the lists are enough for all that a role is for, and for nothing else.
func TestPermissions(t *testing.T) {
	ways := map[string]func(*testing.T, map[string]bool) *guarded{"users": withUsers, "nkeys": withNkeys, "accounts": withAccounts}
	if dir := os.Getenv("NSC_DIR"); dir != "" { // by make check-nsc, which needs nsc
		ways = map[string]func(*testing.T, map[string]bool) *guarded{"nsc": withNSC(dir)}
	}
	for name, start := range ways {
		for _, flag := range []bool{false, true} { // two forms of the subjects that acknowledge
			g := start(t, map[string]bool{"js_ack_fc_v2": flag})
			t.Run(fmt.Sprintf("%s js_ack_fc_v2=%t", name, flag), func(t *testing.T) {
				t.Parallel()
				testPermissions(t, g)
			})
		}
	}
}

func testPermissions(t *testing.T, g *guarded) {
	t.Helper()
	sim, pasted := startSimulator(t, terminal(t.TempDir()), []string{"worker", "simulate"})
	g.pasted = pasted
	creator, _, _ := startRun(t, g.as(t, "provisioner"), []string{"worker", "run"})
	creator.stop(t)
	g.makesCopies(t)
	dir := t.TempDir()
	run, _, admin := startRun(t, g.as(t, "worker", "WORKER_DATA_DIR="+dir+"/data", "WORKER_PROVISION=false", "WORKER_RATE_PER_HOUR=1000", "WORKER_RATE_PER_MINUTE=50"), []string{"worker", "run"})
	g.rolesDoTheirWork(t, admin)
	g.submitsTwice(t)
	g.takesOverHTTP(t)
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("a worker with NATS_URL made a store of its own")
	}
	if all := g.refused(); len(all) > 0 {
		t.Errorf("the broker refused:\n%s", strings.Join(all, "\n"))
	}
	// It tries more than a worker does, such as to publish requests.
	succeeds(t, g.as(t, "worker", "WORKER_PROVISION=false"), "worker", "check")
	g.rolesDoNothingElse(t)
	g.answersStayInTheAccount(t)
	if log := run.stop(t); strings.Contains(log, "Violation") {
		t.Errorf("the worker was refused something:\n%s", log)
	}
	g.approverReleases(t)
	sim.stop(t)
}

// approverReleases: an approver sees what awaits approval, and gives it, and is refused nothing on the way.
func (g *guarded) approverReleases(t *testing.T) {
	t.Helper()
	seeds, signers := map[string]string{}, ""
	for _, name := range []string{"soar", "ann"} {
		pair := newKey(t, nkeys.CreateUser)
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		seeds[name] = secretFile(t, name+".nk", seed)
		signers += name + "=" + publicKey(t, pair) + ","
	}
	rules := WriteTestFile(t, "policy.yaml", "signers:\n  soar:\n    approvals: {required: 1, by: [ann], within: 1h}\ndefault: {}\n")
	run, _, _ := startRun(t, g.as(t, "worker", "WORKER_PROVISION=false", "WORKER_TRUSTED_SIGNERS="+strings.TrimSuffix(signers, ","), "WORKER_POLICY_FILE="+rules), []string{"worker", "run"})
	before := len(g.refused())
	succeeds(t, g.as(t, "publisher"), "worker", "submit", "--id", "asks", "--machine", permissionMachine, "--comment", "c", "--sign-with", seeds["soar"])
	for ctx := t.Context(); !strings.Contains(succeeds(t, g.as(t, "approver"), "worker", "approvals"), "asks"); {
		if !service.Pause(ctx, 100*time.Millisecond) {
			t.Fatal("nothing awaits approval")
		}
	}
	if out := succeeds(t, g.as(t, "approver"), "worker", "approve", "asks", "--sign-with", seeds["ann"]); !strings.Contains(out, "approved") {
		t.Errorf("worker approve as approver: %s", out)
	}
	if r := finalResult(t, g.jetStream(t, "reader"), "asks", 1); r.Outcome != message.Succeeded {
		t.Errorf("ended %s: %+v", r.Outcome, r.Error)
	}
	if all := g.refused()[before:]; len(all) > 0 {
		t.Errorf("the broker refused:\n%s", strings.Join(all, "\n"))
	}
	run.stop(t)
}

// submitsTwice: a publisher's rows are not queued again, nor are an operator's.
func (g *guarded) submitsTwice(t *testing.T) {
	t.Helper()
	submit := []string{"worker", "submit", "--batch", "twice", "--file", WriteTestFile(t, "machines.csv", "machineId,comment\n"+permissionMachine+",c\n")}
	for _, c := range []struct{ role, said string }{
		{"publisher", "1 request published, 0 were already there"},
		{"publisher", "0 requests published, 1 were already there"},
		{"operator", "0 requests published, 1 were already there"},
	} {
		if out := succeeds(t, g.as(t, c.role), submit...); !strings.Contains(out, c.said) {
			t.Errorf("worker submit as %s: %s", c.role, out)
		}
		for ctx := t.Context(); !strings.Contains(succeeds(t, g.as(t, "operator"), "worker", "results", "--follow=false", "--batch", "twice"), "succeeded"); {
			if !service.Pause(ctx, 100*time.Millisecond) { // a reader's consumer would have answers on their way to its account for a while
				t.Fatal("no final result")
			}
		}
	}
}

// makesCopies makes the streams that reader and auditor read.
func (g *guarded) makesCopies(t *testing.T) {
	t.Helper()
	for role, file := range map[string]string{"reader-provisioner": "results-copy.json", "auditor-provisioner": "audit-copy.json"} {
		var cfg jetstream.StreamConfig
		text, err := os.ReadFile(filepath.Join(natsFiles, file))
		if err == nil {
			err = json.Unmarshal(text, &cfg)
		}
		if err == nil {
			_, err = g.jetStream(t, role).CreateStream(t.Context(), cfg)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

const permissionMachine = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"

// rolesDoTheirWork types what each role is for.
func (g *guarded) rolesDoTheirWork(t *testing.T, admin string) {
	t.Helper()
	publisher := g.jetStream(t, "publisher")
	replies, err := publisher.Conn().SubscribeSync("remediation.replies.publisher.good")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(payload string) {
		if _, err := publisher.Publish(t.Context(), "remediation.unrestrict", []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	publish(`{"id":"good","machineId":"` + permissionMachine + `","comment":"c","replyTo":"remediation.replies.publisher.good"}`)
	operator, reader := g.jetStream(t, "operator"), g.jetStream(t, "reader")
	if r := finalResult(t, reader, "good", 1); r.Outcome != message.Succeeded {
		t.Errorf("ended %s: %+v", r.Outcome, r.Error)
	}
	for final := false; !final; {
		msg, err := replies.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatalf("replyTo: %v", err)
		}
		final = strings.Contains(string(msg.Data), `"final":true`)
	}
	for _, id := range []string{"late", "later"} {
		publish(`{"id":"` + id + `","machineId":"` + permissionMachine + `","comment":"c","expiresAt":"2020-01-01T00:00:00Z"}`)
		finalResult(t, reader, id, 1)
	}

	// The publisher can submit, and the reader read; the rest is the operator's.
	out := succeeds(t, g.as(t, "publisher"), "worker", "submit", "--machine", permissionMachine, "--comment", "submitted")
	id := regexp.MustCompile(`Published as (\S+)\.`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("worker submit: %s", out)
	}
	finalResult(t, reader, id[1], 1)
	if out := succeeds(t, g.as(t, "reader"), "worker", "results", "--follow=false"); !strings.Contains(out, id[1]) {
		t.Errorf("worker results as reader: %s", out)
	}
	g.copied(t, "auditor", "REMEDIATION_AUDIT", `"requestId":"good"`)
	g.healthy(t)
	out = succeeds(t, g.as(t, "auditor"), "worker", "audit", "export")
	if !strings.Contains(out, `"requestId":"good"`) {
		t.Errorf("worker audit export as auditor: %s", out)
	}
	if out := succeeds(t, g.as(t, "auditor"), "worker", "audit", "verify"); !strings.Contains(out, "Whole") {
		t.Errorf("worker audit verify as auditor: %s", out)
	}
	for _, c := range []struct{ words, want string }{
		{"results --follow=false", id[1]},
		{"why " + id[1], "succeeded"},
		{"pause --reason change", "Paused"},
		{"resume --reason done", "Resumed"},
		{"deadletter list", "later"},
		{"deadletter show late", "expired"},
		{"deadletter drop later --yes", "dropped"},
		{"why later", "was dropped by"},
		{"audit verify", "Whole"},
	} {
		words := append([]string{"worker"}, strings.Fields(c.words)...)
		if out := succeeds(t, g.as(t, "operator"), words...); !strings.Contains(strings.ToLower(out), strings.ToLower(c.want)) {
			t.Errorf("%q as operator: %s", words, out)
		}
	}
	// What was done has the name that the broker knows, and nobody's machine.
	out = succeeds(t, g.as(t, "operator"), "worker", "audit", "export")
	for _, act := range []string{`"act":"pause","by":WHO,"reason":"change"`, `"act":"resume","by":WHO,"reason":"done"`, `"act":"deadletterDrop","by":WHO,"deadLetter":`} {
		if who := strings.ReplaceAll(act, "WHO", `"(operator|U[A-Z0-9]{55})"`); !regexp.MustCompile(who).MatchString(out) {
			t.Errorf("%s is not in the audit trail: %s", who, out)
		}
	}
	if out := succeeds(t, g.as(t, "approver"), "worker", "approvals"); !strings.Contains(out, "Nothing awaits approval") {
		t.Errorf("worker approvals as approver: %s", out)
	}
	for role, lane := range map[string]string{"publisher": "bulk", "publisher-urgent": "urgent"} {
		succeeds(t, g.as(t, role), "worker", "submit", "--machine", permissionMachine, "--comment", "c", "--lane", lane)
	}
	out = succeeds(t, g.as(t, "operator"), "worker", "submit", "--wait", "--machine", permissionMachine, "--comment", "by an operator")
	if !strings.Contains(out, "succeeded") {
		t.Errorf("worker submit --wait as operator: %s", out)
	}
	g.replays(t, operator, reader)
	for _, path := range []string{"/status", "/"} {
		getPage(t, "http://"+admin+path)
	}
}

// healthy waits until the operator hears that all is well: what a replica that has ended said of itself last counts for
// some seconds more.
func (g *guarded) healthy(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		status := exec.CommandContext(ctx, "worker", "status")
		status.Env = g.as(t, "operator")
		out, err := status.CombinedOutput()
		if err == nil {
			return
		}
		if !service.Pause(ctx, 200*time.Millisecond) {
			t.Fatalf("worker status: %v\n%s", err, out)
		}
	}
}

// copied waits until a role's stream has a message with this in it.
func (g *guarded) copied(t *testing.T, role, stream, part string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cons, err := g.jetStream(t, role).OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	it, err := cons.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Stop()
	for {
		msg, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("%s in %s: %v", part, stream, err)
		}
		if strings.Contains(string(msg.Data()), part) {
			return
		}
	}
}

// replays publishes the dead letter of late again, as worker deadletter replay does for one that has hope.
func (g *guarded) replays(t *testing.T, operator, reader jetstream.JetStream) {
	t.Helper()
	dead, err := operator.Stream(t.Context(), "REMEDIATION_DEADLETTER")
	if err != nil {
		t.Fatal(err)
	}
	letter, err := dead.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	header := nats.Header(message.ReplayHeader(1, message.Header(letter.Header)))
	if _, err := operator.PublishMsg(t.Context(), &nats.Msg{Subject: "remediation.unrestrict", Data: letter.Data, Header: header}); err != nil {
		t.Fatal(err)
	}
	finalResult(t, reader, "late", 2)
	if _, err := dead.GetMsg(t.Context(), 1); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("the replayed dead letter: %v", err)
	}
}

// act is something that a user may try.
type act struct {
	subscribe bool
	subject   string
	by        []string // the roles that may
}

// acts are what would undo something, or show what is not one's own.
func acts() (all []act) {
	worker := []string{"worker", "provisioner"}
	staff := append([]string{"operator"}, worker...)
	pub := func(by []string, subjects ...string) {
		for _, s := range subjects {
			all = append(all, act{subject: s, by: by})
		}
	}
	pub([]string{"publisher", "publisher-urgent", "operator", "intake"}, "remediation.unrestrict", "remediation.unrestrict.bulk")
	pub([]string{"publisher-urgent", "operator", "intake"}, "remediation.unrestrict.urgent")
	pub(append([]string{"publisher", "publisher-urgent"}, staff...), "$SYS.REQ.USER.INFO")
	pub(nil, "remediation.unrestrict.other")
	pub(worker, "remediation.results", "remediation.deadletter", "remediation.replies.publisher.x",
		"unrestrict.rate.minute", "unrestrict.rate.hour", "$KV.UNRESTRICT_LEDGER.e.0.1", "$KV.UNRESTRICT_LEDGER.m.0.1",
		"$KV.UNRESTRICT_STATE.closed", "$KV.UNRESTRICT_STATE.lease.0.track", "$KV.UNRESTRICT_STATE.replica.0.1", "$KV.UNRESTRICT_STATE.rate.unlimited.minute",
		"$JS.API.CONSUMER.MSG.NEXT.REMEDIATION.unrestrict-worker", "$JS.API.CONSUMER.MSG.NEXT.REMEDIATION.unrestrict-worker-urgent", "$JS.API.CONSUMER.LIST.REMEDIATION",
		"$JS.ACK.REMEDIATION.unrestrict-worker.1.1.1.1700000000000000000.0", "$JS.ACK._.hash.REMEDIATION.unrestrict-worker.1.1.1.1700000000000000000.0")
	pub([]string{"operator", "approver", "intake"}, "remediation.control")
	pub(staff, "remediation.audit", "$KV.UNRESTRICT_STATE.pause.0")
	pub(append([]string{"intake"}, staff...), "$JS.API.CONSUMER.INFO.REMEDIATION.unrestrict-worker")
	pub([]string{"provisioner"}, "$JS.API.STREAM.NAMES")
	pub(nil, "$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.CONSUMER.NAMES.REMEDIATION", "$SYS.REQ.SERVER.PING",
		"_INBOX.somebody.else", "JS.remediation.API.CONSUMER.CREATE.REMEDIATION_RESULTS.x", "copy.results.x", "copy.audit.x",
		"$JS.API.CONSUMER.DELETE.REMEDIATION.unrestrict-worker", "$JS.API.CONSUMER.PAUSE.REMEDIATION.unrestrict-worker",
		"$JS.API.CONSUMER.RESET.REMEDIATION.unrestrict-worker", "$JS.API.CONSUMER.UNPIN.REMEDIATION.unrestrict-worker",
		"$JS.API.CONSUMER.DURABLE.CREATE.REMEDIATION.mine", "$JS.API.CONSUMER.CREATE.REMEDIATION", "$JS.API.CONSUMER.MSG.NEXT.REMEDIATION.mine",
		"$JS.API.META.LEADER.STEPDOWN", "anything.else")
	pub([]string{"provisioner"}, "$JS.API.CONSUMER.CREATE.REMEDIATION.mine", "$JS.API.CONSUMER.CREATE.REMEDIATION.mine.remediation.unrestrict")
	read := map[string][]string{"REMEDIATION_RESULTS": {"reader"}, "REMEDIATION_AUDIT": {"auditor"}} // copies of them
	approver := []string{"REMEDIATION", "REMEDIATION_AUDIT", "KV_UNRESTRICT_LEDGER"}
	for _, s := range []string{
		"REMEDIATION", "REMEDIATION_RESULTS", "REMEDIATION_DEADLETTER", "REMEDIATION_AUDIT", "KV_UNRESTRICT_LEDGER",
		"KV_UNRESTRICT_STATE", "UNRESTRICT_RATE_MINUTE", "UNRESTRICT_RATE_HOUR",
	} {
		for _, verb := range []string{"PURGE", "DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN", "PEER.REMOVE"} {
			pub(nil, "$JS.API.STREAM."+verb+"."+s)
		}
		create := []string{"provisioner"}
		for _, copier := range read[s] {
			create = append(create, copier+"-provisioner")
		}
		pub(create, "$JS.API.STREAM.CREATE."+s)
		var update []string
		switch {
		case strings.HasPrefix(s, "UNRESTRICT_RATE"):
			update = worker
		case strings.HasPrefix(s, "KV_"):
			update = []string{"provisioner"}
		case s == "REMEDIATION": // to add lanes to the stream that it made
			update = []string{"provisioner"}
		}
		pub(update, "$JS.API.STREAM.UPDATE."+s)
		var drop []string
		switch s {
		case "REMEDIATION_DEADLETTER":
			drop = staff
		case "REMEDIATION_RESULTS": // the oldest of those that nobody vouches for
			drop = worker
		}
		pub(drop, "$JS.API.STREAM.MSG.DELETE."+s)
		readers := append(slices.Clone(staff), read[s]...)
		if slices.Contains(approver, s) {
			readers = append(readers, "approver")
		}
		if s != "REMEDIATION_AUDIT" && s != "REMEDIATION_DEADLETTER" {
			readers = append(readers, "intake")
		}
		pub(readers, "$JS.API.STREAM.MSG.GET."+s, "$JS.API.DIRECT.GET."+s)
		pub(staff, "$JS.API.DIRECT.GET."+s+".$KV.UNRESTRICT_LEDGER.e.0.1")
		for _, copier := range read[s] {
			readers = append(readers, copier+"-provisioner")
		}
		if s == "REMEDIATION_DEADLETTER" { // how many there are
			readers = append(readers, "intake")
		}
		pub(readers, "$JS.API.STREAM.INFO."+s)
	}
	callers := []string{"intake", "intake-provisioner"}
	pub([]string{"reader"}, "$JS.API.CONSUMER.CREATE.REMEDIATION_RESULTS.mine")
	pub([]string{"reader", "intake-provisioner"}, "$JS.API.CONSUMER.CREATE.REMEDIATION_RESULTS.mine.remediation.results")
	pub(append([]string{"reader"}, callers...), "$JS.API.CONSUMER.MSG.NEXT.REMEDIATION_RESULTS.mine", "$JS.ACK.REMEDIATION_RESULTS.mine.1.1.1.1700000000000000000.0")
	pub([]string{"reader"}, "$JS.API.CONSUMER.DELETE.REMEDIATION_RESULTS.mine")
	pub(nil, "$JS.API.CONSUMER.CREATE.REMEDIATION_DEADLETTER.mine", "$JS.ACK._.hash.OTHER.unrestrict-worker.1.1.1.1700000000000000000.0")
	pub([]string{"auditor"}, "$JS.API.CONSUMER.CREATE.REMEDIATION_AUDIT.mine")
	pub(worker, "$JS.API.CONSUMER.CREATE.KV_UNRESTRICT_LEDGER.mine", "$JS.API.CONSUMER.CREATE.KV_UNRESTRICT_STATE.mine")
	for _, s := range []string{
		">", "*.>", "remediation.>", "remediation.*", "remediation.unrestrict", "remediation.results", "remediation.audit",
		"remediation.replies.>", "remediation.replies.*.good", "$KV.>", "$JS.>", "$JS.ACK.>", "$SYS.>", "_R_.>", "unrestrict.>", "copy.>", "_INBOX.>",
	} {
		all = append(all, act{subscribe: true, subject: s})
	}
	for _, role := range roles {
		all = append(all, act{subscribe: true, subject: inboxOf(role) + ".>", by: []string{role}})
	}
	return append(all, act{subscribe: true, subject: "remediation.replies.publisher.>", by: []string{"publisher", "publisher-urgent"}})
}

// rolesDoNothingElse has every role try what it may not.
func (g *guarded) rolesDoNothingElse(t *testing.T) {
	t.Helper()
	for _, role := range roles {
		nc := g.connect(t, role)
		for _, a := range acts() {
			if slices.Contains(a.by, role) {
				continue
			}
			what := "publish"
			if a.subscribe {
				what = "subscribe"
				if _, err := nc.SubscribeSync(a.subject); err != nil {
					t.Fatal(err)
				}
			} else if err := nc.PublishRequest(a.subject, nc.NewInbox(), []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			// The broker's refusal comes before its answer to the flush.
			if err := nc.LastError(); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), fmt.Sprintf("%q", a.subject)) {
				t.Errorf("%s may %s %s: %v", role, what, a.subject, err)
			}
		}
	}
}

// answersStayInTheAccount has those in accounts of their own send answers where they may not publish, and listen to
// those of others.
func (g *guarded) answersStayInTheAccount(t *testing.T) {
	t.Helper()
	operator := g.jetStream(t, "operator")
	last := func(stream string) uint64 { return stateOf(t, operator, stream).LastSeq }
	requests, store, hour := last("REMEDIATION"), last("KV_UNRESTRICT_LEDGER"), last("UNRESTRICT_RATE_HOUR")
	before := map[string]uint64{"REMEDIATION_RESULTS": last("REMEDIATION_RESULTS"), "REMEDIATION_DEADLETTER": last("REMEDIATION_DEADLETTER")}
	pause := "$KV.UNRESTRICT_STATE.pause." + ledger.DeploymentDigest("REMEDIATION")
	own := map[string][]string{"publisher": {"remediation.unrestrict"}, "operator": {"remediation.unrestrict", "remediation.audit", pause}} // which it may
	for role, asks := range map[string]string{
		"publisher": "remediation.unrestrict", "operator": "$JS.API.STREAM.INFO.REMEDIATION", "approver": "$JS.API.STREAM.INFO.REMEDIATION",
		"reader": "$JS.API.DIRECT.GET.REMEDIATION_RESULTS", "auditor": "$JS.API.STREAM.INFO.REMEDIATION_AUDIT",
	} {
		nc := g.connect(t, role)
		inboxes, err := nc.SubscribeSync(inboxOf(role) + ".>")
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{
			"remediation.unrestrict", "remediation.results", "remediation.deadletter", "remediation.audit", "$KV.UNRESTRICT_LEDGER.e.0.1", pause, "unrestrict.rate.hour",
		} {
			if slices.Contains(own[role], target) {
				continue
			}
			body := `{"seq":1}`
			if role == "operator" {
				body = ""
			}
			if err := nc.PublishRequest(asks, target, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		if role != "operator" { // whose own these would be
			g.healthy(t) // which makes answers for the operator, and the worker has its own
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		if n, _, err := inboxes.Pending(); n > 0 || err != nil {
			t.Errorf("%s hears %d answers to others (%v)", role, n, err)
		}
	}
	// What the publisher published on the way is malformed. When the last of it is rejected, all answers have been sent.
	publisher := g.jetStream(t, "publisher")
	if _, err := publisher.Publish(t.Context(), "remediation.unrestrict", []byte(`{"id":"after"}`)); err != nil {
		t.Fatal(err)
	}
	finalResult(t, g.jetStream(t, "reader"), fmt.Sprintf("REMEDIATION:%d", requests+7), 1)
	if got := last("REMEDIATION"); got != requests+7 {
		t.Errorf("%d requests were published instead of 7", got-requests)
	}
	if got := last("UNRESTRICT_RATE_HOUR"); got != hour {
		t.Errorf("%d calls were taken from the budget", got-hour)
	}
	for stream, seq := range before {
		if got := last(stream); got != seq+7 {
			t.Errorf("%s has %d new messages for 7 requests", stream, got-seq)
		}
	}
	entry, err := operator.Stream(t.Context(), "KV_UNRESTRICT_LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := entry.GetLastMsgForSubject(t.Context(), "$KV.UNRESTRICT_LEDGER.e.0.1"); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("the ledger, which stood at %d, has %v (%v)", store, msg, err)
	}
	if out := succeeds(t, g.as(t, "operator"), "worker", "status", "--json"); !strings.Contains(out, `"paused":null`) {
		t.Errorf("somebody paused the worker: %s", out)
	}
	if out := succeeds(t, g.as(t, "operator"), "worker", "audit", "verify"); !strings.Contains(out, "Whole") {
		t.Errorf("somebody wrote into the audit trail: %s", out)
	}
	g.rollupEmptiesTheStateAlone(t)
}

// rollupEmptiesTheStateAlone is what README.md says of an operator who sends the pause with a header of JetStream's: the
// shared state is gone, ledger and budget are not, and the workers go on.
func (g *guarded) rollupEmptiesTheStateAlone(t *testing.T) {
	t.Helper()
	operator := g.jetStream(t, "operator")
	kept := func(stream string) uint64 { return stateOf(t, operator, stream).Msgs }
	ledger, hour := kept("KV_UNRESTRICT_LEDGER"), kept("UNRESTRICT_RATE_HOUR")
	msg := &nats.Msg{Subject: "$KV.UNRESTRICT_STATE.pause.none", Header: nats.Header{"Nats-Rollup": {"all"}}}
	ack, err := operator.PublishMsg(t.Context(), msg)
	if err != nil {
		t.Fatal(err)
	}
	if first := stateOf(t, operator, "KV_UNRESTRICT_STATE").FirstSeq; first != ack.Sequence {
		t.Errorf("the shared state begins at %d, and the rollup is %d", first, ack.Sequence)
	}
	if kept("KV_UNRESTRICT_LEDGER") < ledger || kept("UNRESTRICT_RATE_HOUR") < hour {
		t.Error("a rollup of the pause took something from ledger or budget")
	}
	g.healthy(t)
	succeeds(t, g.as(t, "operator"), "worker", "submit", "--wait", "--machine", permissionMachine, "--comment", "after the rollup")
}

func stateOf(t *testing.T, js jetstream.JetStream, stream string) jetstream.StreamState {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State
}
