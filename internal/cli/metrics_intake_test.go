package cli

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// intakeAtWork is an intake that has stored a request and could not post its results, and that knows nobody else.
func intakeAtWork(t *testing.T) *door {
	t.Helper()
	s := runSystem(t, nil)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(intakeToken))
	file := WriteTestFile(t, "clients.yaml", fmt.Sprintf("clients:\n- name: soar\n  token_sha256: [%s]\n  callbacks: [{name: siem, url: %q, secret_file: %q}]\n",
		hex.EncodeToString(sum[:]), "http://"+nobody.Addr().String(), WriteTestFile(t, "secret", "whsec_"+base64.StdEncoding.EncodeToString([]byte("a-secret-of-twenty-four-")))))
	_ = nobody.Close()
	d := &door{t: t, addr: s.runIntake(t, map[string]string{"WORKER_INTAKE_CLIENTS_FILE": file})}
	d.until("/readyz", `"ready":true`)
	if status, text := d.ask("POST", "/v1/requests", `{"id":"a","machineId":"`+MachineOf(1)+`","comment":"c"}`); status != 202 {
		t.Fatalf("%d %s", status, text)
	}
	d.until("/metrics", `code="error"`)
	d.until("/metrics", `unrestrict_intake_callback_waiting`)
	return d
}

// TestMetricsOfIntake holds docs/observability.md against what an intake exports.
func TestMetricsOfIntake(t *testing.T) {
	_, text := intakeAtWork(t).ask("GET", "/metrics", "")
	var rows []metricRow
	for line := range strings.Lines(text) {
		words := strings.SplitN(strings.TrimSpace(line), " ", 4)
		switch {
		case len(words) == 4 && words[1] == "HELP" && strings.HasPrefix(words[2], "unrestrict_intake_"):
			rows = append(rows, metricRow{name: words[2], help: words[3]})
		case len(rows) == 0 || !strings.Contains(line, rows[len(rows)-1].name):
		case words[1] == "TYPE":
			rows[len(rows)-1].kind = words[3]
		default:
			var labels []string
			for _, m := range matcher.FindAllStringSubmatch(line, -1) {
				labels = append(labels, m[1])
			}
			slices.Sort(labels)
			rows[len(rows)-1].labels = strings.Join(labels, ",")
		}
	}
	checkMetricsPage(t, `metrics of the intake, by "make generate"`, "end of the intake's", rows)
}
