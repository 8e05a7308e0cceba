package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/service"
)

// approvalsPage needs signers and their policy, which a worker of the quick start has not.
const approvalsPage = "docs/approvals.md"

// TestApprovalsPage does what the page about approvals says, with the policy that stands there.
func TestApprovalsPage(t *testing.T) {
	all := pages(t)
	page := all[approvalsPage]
	steps := blocks(page, "sh")
	if len(steps) != 3 {
		t.Fatalf("the page has other steps: %q", steps)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	var trusted []string
	var people strings.Builder
	for _, name := range []string{"soar", "bulk-tool", "ann", "ben", "lead-shift"} {
		key := seedFile(t, name+".nk")
		trusted = append(trusted, name+"="+key)
		people.WriteString(key + " " + name + "\n")
	}
	writeFiles(t, map[string]string{
		"people.txt": people.String(), "policy.yaml": blocks(page, "yaml")[0], "machines.csv": blocks(all["docs/integrations.md"], "csv")[0],
	})
	env := terminal(dir)
	sim, pasted := startSimulator(t, env, []string{"worker", "simulate"})
	run, broker, _ := startRun(t, append(env, append(pasted, "WORKER_TRUSTED_SIGNERS="+strings.Join(trusted, ","), "WORKER_POLICY_FILE="+filepath.Join(dir, "policy.yaml"))...), []string{"worker", "run"})
	env = append(env, "WORKER_EMBEDDED_ADDR="+strings.TrimPrefix(broker, "nats://"))

	for _, id := range []string{"INC-4711-1", "INC-4712-1"} {
		succeeds(t, env, "worker", "submit", "--machine", permissionMachine, "--comment", "cleaned", "--id", id, "--sign-with", "soar.nk")
	}
	succeeds(t, env, "worker", "submit", "--file", "machines.csv", "--batch", "monday", "--sign-with", "soar.nk")
	for _, id := range []string{"INC-4711-1", "INC-4712-1", "monday:2"} {
		for !strings.Contains(succeeds(t, env, "worker", "approvals"), id) {
			if !service.Pause(t.Context(), 50*time.Millisecond) {
				t.Fatalf("%s does not await approval", id)
			}
		}
	}
	runBlocks(t, env, approvalsPage, steps[:2])
	succeeds(t, env, "worker", "audit", "export", "--out", "trail.jsonl")
	runBlocks(t, env, approvalsPage, steps[2:])
	run.stop(t)
	sim.stop(t)
}

// seedFile makes a key, whose seed it writes into a file of this folder, and returns the public one.
func seedFile(t *testing.T, file string) string {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, map[string]string{file: string(seed)})
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// writeFiles writes files of this folder.
func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	for file, content := range files {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
