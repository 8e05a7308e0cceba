package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/cli/check"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
)

// TestMisspeltStops: a command stops where it would have used what was meant, and else says nothing; all slips at once.
func TestMisspeltStops(t *testing.T) {
	env := map[string]string{"NATS_ULR": "nats://127.0.0.1:1", "WORKER_DRY_RUNN": "true", "WORKER_COLOUR": "red", "WORKER_ADMIN_ADDR": "127.0.0.1:1"}
	status, _, stderr := command(t, env, "run")
	want := "worker: bad configuration, 2 mistakes:\n" +
		"  NATS_ULR is set in the environment: there is no such variable; did you mean NATS_URL? Rename it, or unset it\n" +
		"  WORKER_DRY_RUNN is set in the environment: there is no such variable; did you mean WORKER_DRY_RUN? Rename it, or unset it\n"
	if status != 2 || stderr != want {
		t.Errorf("run: exit status %d, %s", status, cmp.Diff(want, stderr))
	}
	if status, _, stderr = command(t, env, "healthcheck"); status != 1 || !strings.HasPrefix(stderr, "worker: WORKER_COLOUR is set in the environment, and there is no such variable\n") || strings.Contains(stderr, "mean") {
		t.Errorf("healthcheck: exit status %d, %s", status, stderr)
	}
	if status, stdout, stderr := command(t, env, "version"); status != 0 || stderr != "" {
		t.Errorf("version: exit status %d, %s%s", status, stdout, stderr)
	}
	delete(env, "WORKER_DRY_RUNN")
	if status, _, stderr = command(t, env, "submit", "--machine", MachineOf(1), "--comment", "c"); status != 2 || !strings.Contains(stderr, "NATS_ULR") {
		t.Errorf("submit: exit status %d, %s", status, stderr)
	}
	var out strings.Builder
	k := &check.Report{Env: &session.Env{}, Screen: session.Screen{Out: &out}}
	declared := config.NewTable()
	_, k.Env.Mistakes = declared.Load(config.Sources{Environ: environOf(env)})
	k.Env.Unknown = declared.Unknown
	k.Configuration()
	want = "FAIL  configuration: NATS_ULR is set in the environment\n      do: there is no such variable; did you mean NATS_URL? Rename it, or unset it\n" +
		"warn  configuration: WORKER_COLOUR is set in the environment, and there is no such variable\n      do: unset it, or correct its name\n"
	if out.String() != want {
		t.Errorf("check: %s", cmp.Diff(want, out.String()))
	}
}
