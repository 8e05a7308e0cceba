package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// What `demo --stay` prints for another terminal lets its programs in, and shows no token.
func TestDemoStaySaysHowToSignIn(t *testing.T) {
	env := terminal(t.TempDir())
	demo := start(t, env, []string{"worker", "demo", "--stay"}, false)
	var said strings.Builder
	export := ""
	demo.until(t, func(line string) bool {
		said.WriteString(line + "\n")
		if strings.HasPrefix(line, "export NATS_URL=") {
			export = line
		}
		return strings.HasPrefix(line, "curl ")
	})
	out := strings.Fields(succeeds(t, env, "sh", "-c", export+"\necho $NATS_URL $NATS_TOKEN"))
	if len(out) != 2 {
		t.Fatalf("%q sets %q", export, out)
	}
	url, token := out[0], out[1]
	nc, err := nats.Connect(url, nats.Token(token))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if nc, err := nats.Connect(url); err == nil {
		nc.Close()
		t.Error("a client without the token was let in")
	}
	if strings.Contains(said.String(), token) {
		t.Errorf("the token is shown: %s", said.String())
	}
	api, err := filepath.Glob(filepath.Join(lastOf(env, "TMPDIR"), "worker-demo-*", "token"))
	if err != nil || len(api) != 1 {
		t.Fatalf("the simulated API's token: %q, %v", api, err)
	}
	if text, err := os.ReadFile(api[0]); err != nil || strings.Contains(string(text), token) {
		t.Errorf("the broker takes the API's token (%v)", err)
	}
	demo.stop(t)
}
