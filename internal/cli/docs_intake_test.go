package cli

import (
	"context"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/intake"
)

// runIntake runs an intake beside the system's worker, and returns its address.
func (s *system) runIntake(t *testing.T, more map[string]string) (addr string) {
	t.Helper()
	variables := map[string]string{"WORKER_DATA_DIR": s.dataDir(), "WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_INTAKE_ADDR": "127.0.0.1:0"}
	maps.Copy(variables, more)
	settings, err := config.SettingsFrom(variables)
	if err != nil {
		t.Fatal(err)
	}
	door, err := intake.New(settings, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	at, err := door.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- door.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return at.String()
}

// openDoor is an intake as `worker intake` is beside a worker on one machine: its address, and the token of its client.
func openDoor(t *testing.T) (addr, token string) {
	t.Helper()
	s := runSystem(t, nil)
	addr = s.runIntake(t, nil)
	text, err := os.ReadFile(filepath.Join(s.dataDir(), "intake-token"))
	if err != nil {
		t.Fatal(err)
	}
	for curl(t, addr, "", []string{"curl", "http://127.0.0.1:8090/readyz"}) != http.StatusOK {
	}
	return addr, strings.TrimSpace(string(text))
}

// TestDocsIntake runs the command lines of docs/intake.md, in their order: each is answered with a 2xx.
func TestDocsIntake(t *testing.T) {
	addr, token := openDoor(t)
	ran := 0
	for _, block := range blocks(pages(t)["docs/intake.md"], "sh") {
		for _, words := range shellCommands(block) {
			if words[0] != "curl" {
				continue
			}
			ran++
			if status := curl(t, addr, token, words); status/100 != 2 {
				t.Errorf("%q is answered %d", words, status)
			}
		}
	}
	if ran < 3 {
		t.Errorf("ran only %d", ran)
	}
}

// TestDocsIntakeRecipes runs the recipes of docs/integrations.md that a program of this machine can run, as they are: each gets its
// release done, and says so.
func TestDocsIntakeRecipes(t *testing.T) {
	addr, token := openDoor(t)
	_, section, _ := strings.Cut(pages(t)["docs/integrations.md"], "## Over HTTP\n")
	section, _, found := strings.Cut(section, "\n## ")
	if !found {
		t.Fatal("docs/integrations.md has no recipes")
	}
	for _, c := range []struct {
		language string
		command  []string
		says     string
	}{
		{"bash", []string{"bash", "-e", "-c"}, `"status":"Succeeded"`},
		{"python", []string{"python3", "-c"}, "200 Succeeded succeeded"},
		{"js", []string{"node", "--input-type=module", "--eval"}, "200 Succeeded succeeded"},
	} {
		t.Run(c.language, func(t *testing.T) {
			recipes := blocks(section, c.language)
			if len(recipes) != 1 {
				t.Fatalf("there are %d recipes", len(recipes))
			}
			words := append(c.command, recipes[0])
			findProgram(t, words[0])
			findProgram(t, "curl")
			cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
			cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "INTAKE=http://"+addr, "TOKEN="+token)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// curl does what such a command line would.
func curl(t *testing.T, addr, token string, words []string) (status int) {
	t.Helper()
	method, body, header := http.MethodGet, "", http.Header{}
	for i, word := range words {
		switch word {
		case "-d":
			method, body = http.MethodPost, words[i+1]
		case "--data-binary": // of machines.csv
			method, body = http.MethodPost, "machineId,comment\n"+MachineOf(1)+",c\n"
		case "-X":
			method = words[i+1]
		case "-H":
			name, value, _ := strings.Cut(words[i+1], ": ")
			header.Set(name, strings.ReplaceAll(value, "$TOKEN", token))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.Replace(words[len(words)-1], "127.0.0.1:8090", addr, 1), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if slices.Contains(words, "--max-time") {
		return answer.StatusCode // it does not end by itself
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}
