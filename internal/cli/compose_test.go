package cli

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/ledger"
)

// TestComposePlaybook runs one broker with the users of deploy/compose.nats.conf: the playbook's may ask and hear that
// the request was stored, and can neither write elsewhere by the reply's subject nor hear what goes to others.
func TestComposePlaybook(t *testing.T) {
	g := withCompose(t, nil)
	sim, pasted := startSimulator(t, terminal(t.TempDir()), []string{"worker", "simulate"})
	g.pasted = pasted
	run, _, _ := startRun(t, g.as(t, "worker"), []string{"worker", "run"})
	worker, playbook := g.jetStream(t, "worker"), g.jetStream(t, "playbook")
	succeeds(t, g.as(t, "playbook"), "worker", "submit", "--machine", permissionMachine, "--comment", "by the playbook")
	succeeds(t, g.as(t, "playbook"), "worker", "submit", "--file", WriteTestFile(t, "machines.csv", "machineId,comment\n"+permissionMachine+",c\n"))
	if all := g.refused(); len(all) > 0 {
		t.Errorf("the broker refused:\n%s", strings.Join(all, "\n"))
	}

	spy, listen := g.connect(t, "playbook"), g.connect(t, "worker")
	inboxes, err := spy.SubscribeSync("_INBOX.>")
	if err != nil {
		t.Fatal(err)
	}
	forged := map[string]*nats.Subscription{}
	for _, target := range []string{
		"$KV.UNRESTRICT_STATE.pause." + ledger.DeploymentDigest("REMEDIATION"), "$KV.UNRESTRICT_LEDGER.e.0.1",
		"remediation.audit", "remediation.results", "remediation.deadletter", "unrestrict.rate.hour",
	} {
		if forged[target], err = listen.SubscribeSync(target); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, spy, listen)
	succeeds(t, g.as(t, "worker"), "worker", "submit", "--wait", "--machine", permissionMachine, "--comment", "by another")
	flush(t, spy)
	if n, _, err := inboxes.Pending(); n > 0 || err != nil {
		t.Errorf("the playbook's user hears %d messages to others (%v)", n, err)
	}

	for target := range forged {
		if err := playbook.Conn().PublishRequest("remediation.unrestrict", target, []byte(`{"id":"forged"}`)); err != nil {
			t.Fatal(err)
		}
	}
	ack, err := playbook.Publish(t.Context(), "remediation.unrestrict", []byte(`{"id":"after"}`))
	if err != nil {
		t.Fatal(err)
	}
	// All before it are rejected too by then, and were acknowledged before this one.
	finalResult(t, worker, fmt.Sprintf("REMEDIATION:%d", ack.Sequence), 1)
	flush(t, listen)
	for target, sub := range forged {
		for n, _, _ := sub.Pending(); n > 0; n-- {
			msg, err := sub.NextMsg(0)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.HasPrefix(msg.Data, []byte(`{"stream":`)) {
				t.Errorf("the playbook's user had this written to %s: %s", target, msg.Data)
			}
		}
	}
	run.stop(t)
	sim.stop(t)
}

// TestSubmitWithoutBulk has a user submit a file who was let onto the one subject that there was before lanes.
func TestSubmitWithoutBulk(t *testing.T) {
	g := withCompose(t, []string{"remediation.unrestrict"})
	sim, pasted := startSimulator(t, terminal(t.TempDir()), []string{"worker", "simulate"})
	g.pasted = pasted
	run, _, _ := startRun(t, g.as(t, "worker"), []string{"worker", "run"})
	submit := []string{"worker", "submit", "--file", WriteTestFile(t, "machines.csv", "machineId,comment\n"+permissionMachine+",c\n")}
	for _, want := range []string{"1 request published, 0 were already there", "0 requests published, 1 were already there"} {
		out := succeeds(t, g.as(t, "playbook"), submit...)
		if !strings.Contains(out, want) || !strings.Contains(out, "publishing on remediation.unrestrict instead") {
			t.Errorf("worker submit without the right to bulk: %s", out)
		}
	}
	run.stop(t)
	sim.stop(t)
}

// withCompose is deploy/compose.nats.conf without what makes a cluster of three brokers in containers. The playbook may publish
// what it says there, or these subjects.
func withCompose(t *testing.T, publishes []string) *guarded {
	g := &guarded{signIn: map[string][]string{}, option: map[string]nats.Option{}}
	for role, name := range map[string]string{"worker": "NATS_PASSWORD", "playbook": "PLAYBOOK_PASSWORD"} {
		password := "of-" + role
		t.Setenv(name, password)
		g.signIn[role] = []string{"NATS_USER=" + role, "NATS_PASSWORD=" + password}
		g.option[role] = nats.UserInfo(role, password)
	}
	t.Setenv("NODE", "alone")
	t.Setenv("ROUTE_PASSWORD", "of-routes")
	opts := readConfig(t, filepath.Join(repository, "deploy", "compose.nats.conf"))
	opts.Cluster, opts.HTTPHost, opts.HTTPPort, opts.StoreDir = server.ClusterOpts{}, "", 0, t.TempDir()
	for _, u := range opts.Users {
		if u.Username == "playbook" && publishes != nil {
			u.Permissions.Publish.Allow = publishes
		}
	}
	g.start(t, opts)
	return g
}

// flush returns once the broker has done what the connections sent, and they have what it sent before.
func flush(t *testing.T, conns ...*nats.Conn) {
	t.Helper()
	for _, nc := range conns {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}
