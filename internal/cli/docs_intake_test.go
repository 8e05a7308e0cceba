package cli

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/intake"
)

// TestDocsIntake runs the command lines of docs/intake.md, in their order, against an intake as `worker intake` is beside a worker
// on one machine: each is answered with a 2xx.
func TestDocsIntake(t *testing.T) {
	s := runSystem(t, nil)
	settings, err := config.SettingsFrom(map[string]string{"WORKER_DATA_DIR": s.dataDir(), "WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_INTAKE_ADDR": "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	door, err := intake.New(settings, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	addr, err := door.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- door.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	token, err := os.ReadFile(filepath.Join(s.dataDir(), "intake-token"))
	if err != nil {
		t.Fatal(err)
	}
	for curl(t, addr.String(), "", []string{"curl", "http://127.0.0.1:8090/readyz"}) != http.StatusOK {
	}
	ran := 0
	for _, block := range blocks(pages(t)["docs/intake.md"], "sh") {
		for _, words := range shellCommands(block) {
			if words[0] != "curl" {
				continue
			}
			ran++
			if status := curl(t, addr.String(), strings.TrimSpace(string(token)), words); status/100 != 2 {
				t.Errorf("%q is answered %d", words, status)
			}
		}
	}
	if ran < 3 {
		t.Errorf("ran only %d", ran)
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
