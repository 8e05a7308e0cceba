package cli

import (
	"net/url"
	"strings"
	"testing"
)

// TestClientSecretSignIn signs in with azidentity's client-secret credential at the simulator's token endpoint over TLS,
// as real processes with the variables that the simulator prints, and sees a request through to its end. With another
// secret the same set-up is refused, and nothing shows the secret.
func TestClientSecretSignIn(t *testing.T) {
	env := terminal(t.TempDir())
	sim, pasted := startSimulator(t, env, []string{"worker", "simulate", "--tls"})
	run, broker, _ := startRun(t, append(env, pasted...), []string{"worker", "run"})
	at, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	out := succeeds(t, append(env, "WORKER_EMBEDDED_ADDR="+at.Host), "worker", "submit",
		"--machine", "1e5bc9d7e413ddd7902c2932e418702b84d0cc07", "--comment", "Cleaned and validated", "--wait")
	if !strings.Contains(out, "succeeded") {
		t.Errorf("worker submit --wait: %s", out)
	}

	const wrong = "not-the-secret-of-the-simulator"
	p := start(t, append(append(env, pasted...), "WORKER_EMBEDDED_ADDR="+at.Host, "AZURE_CLIENT_SECRET="+wrong), []string{"worker", "check"}, false)
	var said strings.Builder
	for p.lines.Scan() {
		said.WriteString(p.lines.Text() + "\n")
	}
	if err := p.cmd.Wait(); err == nil || !strings.Contains(said.String(), "AADSTS7000215") && !strings.Contains(said.String(), "invalid_client") {
		t.Errorf("worker check with another secret: %v\n%s", err, said.String())
	}
	if log := said.String() + run.stop(t) + sim.stop(t); strings.Contains(log, wrong) {
		t.Error("the secret shows")
	}
}
