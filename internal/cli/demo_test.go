package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// What `demo --stay` prints for another terminal lets its programs in, and shows no token. Its limits are those that were asked for.
func TestDemoStaySaysHowToSignIn(t *testing.T) {
	env := append(terminal(t.TempDir()), "WORKER_RATE_PER_HOUR=60")
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
	if status := succeeds(t, env, "sh", "-c", export+"\nworker status"); !strings.Contains(status, "of 60 calls left this hour") {
		t.Errorf("the call budget is not as asked for: %s", status)
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

// TestDemoSaysHowToKeepIt: the page whose address it showed has ended with it.
func TestDemoSaysHowToKeepIt(t *testing.T) {
	out := succeeds(t, terminal(t.TempDir()), "worker", "demo")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); !strings.HasSuffix(lines[len(lines)-1], " demo --stay") {
		t.Errorf("the demo ends with %q", lines[len(lines)-1])
	}
}

// TestDemoStaySaysHowToAskOverHTTP types the lines that `demo --stay` prints for asking over HTTP: a release is done, its result
// comes to the client's callback, and is found at its address. The token is not shown.
func TestDemoStaySaysHowToAskOverHTTP(t *testing.T) {
	env := terminal(t.TempDir())
	demo := start(t, env, []string{"worker", "demo", "--stay"}, false)
	var said strings.Builder
	var url, token string
	var lines [][]string
	typed := func(words []string) int {
		words[len(words)-1] = strings.Replace(words[len(words)-1], "$INTAKE", url, 1)
		return curl(t, strings.TrimPrefix(url, "http://"), token, words)
	}
	demo.until(t, func(line string) bool {
		said.WriteString(line + "\n")
		switch {
		case strings.HasPrefix(line, "export INTAKE="):
			if out := strings.Fields(succeeds(t, env, "sh", "-c", line+"\necho $INTAKE $TOKEN")); len(out) == 2 {
				url, token = out[0], out[1]
			}
		case strings.HasPrefix(line, "curl ") && url != "":
			lines = append(lines, shellCommands(line)[0])
		case strings.HasPrefix(line, "What is posted"):
			if len(lines) != 2 {
				t.Fatalf("it says %s", said.String())
			}
			if status := typed(lines[0]); status != http.StatusAccepted {
				t.Fatalf("%q is answered %d", lines[0], status)
			}
		}
		return strings.Contains(line, "curl-1 ") && !strings.HasPrefix(line, "curl ")
	})
	if status := typed(lines[1]); status != http.StatusOK {
		t.Errorf("%q is answered %d", lines[1], status)
	}
	for _, id := range []string{"demo-http", "curl-1"} {
		if !strings.Contains(said.String(), id+" succeeded, the signature is verified") {
			t.Errorf("nothing of %s's callback: %s", id, said.String())
		}
	}
	if strings.Contains(said.String(), token) {
		t.Error("the token is shown")
	}
	demo.stop(t)
}
