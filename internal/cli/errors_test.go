package cli

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// said finds what an error should name once: a variable, an address, a path.
var said = regexp.MustCompile(`\b[A-Z]+_[A-Z_]+\b|127\.0\.0\.1:\d+|/[\w./-]{6,}`)

// TestErrorsSayAThingOnce: an error gathers what each layer knows, and none says again what another has said.
func TestErrorsSayAThingOnce(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken, dir := busy.Addr().String(), t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(pairs ...string) map[string]string {
		all := map[string]string{
			"WORKER_ADMIN_ADDR": "127.0.0.1:0", "WORKER_EMBEDDED_ADDR": "127.0.0.1:1", "WORKER_DATA_DIR": filepath.Join(dir, "data"),
			"DEFENDER_API_URL": "http://127.0.0.1:1", "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": filepath.Join(dir, "token"),
		}
		for _, pair := range pairs {
			name, value, _ := strings.Cut(pair, "=")
			all[name] = value
		}
		return all
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args string
		want string
	}{
		{"no token", env(), "check", "FAIL  token: DEFENDER_TOKEN_FILE ("},
		{"no broker", env(), "check", "FAIL  broker address: 127.0.0.1:1: nothing listens there: connect: connection refused"},
		{"no such broker", env("NATS_URL=nats://127.0.0.1:1"), "check", "FAIL  broker address: 127.0.0.1:1: connect: connection refused"},
		{"no variables", env("DEFENDER_AUTH=client-secret"), "check", "AZURE_TENANT_ID is not set; AZURE_CLIENT_ID is not set; neither AZURE_CLIENT_SECRET nor"},
		{"the admin server's address is taken", env("WORKER_ADMIN_ADDR=" + taken), "run", "WORKER_ADMIN_ADDR: listen tcp " + taken + ": bind: address already in use; give an address that is free"},
		{"no file of requests", env(), "submit --file " + filepath.Join(dir, "requests.csv"), "requests.csv: no such file or directory; give the path of a file that can be read"},
		{"the broker's address is taken", env("WORKER_EMBEDDED_ADDR=" + taken), "run", "the embedded broker can't listen (WORKER_EMBEDDED_ADDR; NATS_URL for a broker that is there): listen tcp " + taken},
		{"the store is no folder", env("WORKER_DATA_DIR=" + file), "run", "make the embedded broker's store (WORKER_DATA_DIR): "},
		{"no clients file", env("WORKER_INTAKE_CLIENTS_FILE=" + filepath.Join(dir, "clients")), "intake", "WORKER_INTAKE_CLIENTS_FILE (--intake-clients-file) "},
	} {
		_, stdout, stderr := command(t, c.env, strings.Fields(c.args)...)
		found := false
		for line := range strings.Lines(strings.ReplaceAll(stdout+stderr, ":\n", ": ")) {
			at := strings.Index(line, c.want)
			if at < 0 {
				continue
			}
			found = true
			once := map[string]bool{}
			for part := range strings.SplitSeq(line, ": ") {
				for _, what := range append(said.FindAllString(part, -1), part) {
					if once[what] && what != "" && what != part {
						t.Errorf("%s: %q is said twice in %s", c.name, what, line)
					}
					once[what] = true
				}
			}
		}
		if !found {
			t.Errorf("%s: no %q in\n%s%s", c.name, c.want, stdout, stderr)
		}
	}
}
