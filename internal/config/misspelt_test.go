package config

import (
	"slices"
	"strings"
	"testing"
)

func TestMisspelt(t *testing.T) {
	settings := NewTable().Settings
	for _, c := range []struct {
		name, environ string // space-separated
		meant         string // by the mistake, "" for none
		unknown       bool
	}{
		{"a letter more", "WORKER_DRY_RUNN=true", "WORKER_DRY_RUN", false},
		{"a letter less", "WORKER_TRUSTED_SIGNER=x", "WORKER_TRUSTED_SIGNERS", false},
		{"an underscore less", "WORKER_DRYRUN=true", "WORKER_DRY_RUN", false},
		{"another letter", "DEFENDER_SCOPA=x", "DEFENDER_SCOPE", false},
		{"two swapped", "WORKER_RATE_PER_HUOR=10", "WORKER_RATE_PER_HOUR", false},
		{"the first two", "OWRKER_TRACK=false", "WORKER_TRACK", false},
		{"of the nats command", "NATS_ULR=nats://a", "NATS_URL", false},
		{"between two", "NATS_KKEY=f", "NATS_NKEY or NATS_KEY", false},
		{"of a file", "NATS_TOKEN_FIEL=f", "NATS_TOKEN_FILE", false},
		{"of the log", "LOG_LEVL=debug", "LOG_LEVEL", false},
		{"of the log, of other programs", "LOGLEVEL=debug GLOG_LEVEL=3", "", false},
		{"an empty one", "WORKER_DRY_RUNN=", "", false},
		{"what it is meant", "WORKER_DRY_RUN=true NATS_KEY=f NATS_NKEY=f", "", false},
		{"two slips", "WORKER_DRYY_RUUN=true", "", true},
		{"another name", "DEFENDER_PORTAL=x", "", true},
		{"of the nats command, which is not read here", "NATS_TIMEOUT=5s NATS_SOCKS_PROXY=x NATS_COLOR=red", "", false},
		{"a URL by another name", "NATS_URI=nats://a", "NATS_URL", false},
		{"of another program, beside ours", "NATS_URI=nats://a NATS_URL=nats://a", "", false},
		{"a Service named nats", "NATS_SERVICE_HOST=10.0.0.1 NATS_SERVICE_PORT=4222 NATS_SERVICE_PORT_CLIENT=4222 NATS_PORT=tcp://10.0.0.1:4222 " +
			"NATS_PORT_4222_TCP=tcp://10.0.0.1:4222 NATS_PORT_4222_TCP_PROTO=tcp NATS_PORT_4222_TCP_PORT=4222 NATS_PORT_4222_TCP_ADDR=10.0.0.1", "", false},
		{"a Service named worker", "WORKER_SERVICE_HOST=10.0.0.1 WORKER_SERVICE_PORT=8080 WORKER_SERVICE_PORT_HTTP=8080 WORKER_PORT=tcp://10.0.0.1:8080 " +
			"WORKER_PORT_8080_TCP=tcp://10.0.0.1:8080 WORKER_PORT_8080_TCP_PROTO=tcp WORKER_PORT_8080_TCP_PORT=8080 WORKER_PORT_8080_TCP_ADDR=10.0.0.1", "", false},
		{"Services named defender and worker-admin", "DEFENDER_PORT=udp://10.0.0.1:53 WORKER_ADMIN_PORT=tcp://10.0.0.1:80 WORKER_ADMIN_SERVICE_HOST=10.0.0.1 WORKER_ADMIN_SERVICE_PORT=80", "", false},
		{"a port that no Service has", "WORKER_PORT=8080", "", true},
		{"of Azure and OpenTelemetry", "AZURE_CLIENT_ID=a AZURE_CLIENT_IDS=a OTEL_SERVICE_NAME=a OTEL_TRACES_SAMPLERS=a", "", false},
	} {
		mistakes, unknown := misspelt(strings.Fields(c.environ), settings)
		meant := ""
		for _, m := range mistakes {
			meant = m.Name + ": " + m.Text
		}
		if (meant == "") != (c.meant == "") || !strings.Contains(meant, "did you mean "+c.meant+"?") && c.meant != "" || (len(unknown) > 0) != c.unknown {
			t.Errorf("%s (%s): mistake %q, unknown %q", c.name, c.environ, meant, unknown)
		}
	}
}

// TestSettingsAreNotSlips: no variable of ours, and none that the nats command, Azure's SDK or OpenTelemetry's reads, is
// a slip of one of ours.
func TestSettingsAreNotSlips(t *testing.T) {
	settings := NewTable().Settings
	others := strings.Fields(`NATS_TIMEOUT NATS_SOCKS_PROXY NATS_COLOR NATS_JS_DOMAIN NATS_JS_API_PREFIX NATS_JS_EVENT_PREFIX
		NATS_INBOX_PREFIX NATS_TLS_FIRST NATS_STEP_TIMEOUT NATS_HOST NATS_PORT NATS_SERVER NATS_USERNAME NATS_JWT NATS_SEED
		AZURE_TENANT_ID AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_CLIENT_SECRET_FILE AZURE_CLIENT_CERTIFICATE_PATH AZURE_CLIENT_CERTIFICATE_PASSWORD
		AZURE_FEDERATED_TOKEN_FILE AZURE_AUTHORITY_HOST AZURE_TOKEN_CREDENTIALS AZURE_LOG_LEVEL OTEL_LOG_LEVEL OTEL_SERVICE_NAME OTEL_SDK_DISABLED`)
	for _, name := range slices.Concat(allVariables(settings), others) {
		mistakes, unknown := misspelt([]string{name + "=x"}, settings)
		if len(mistakes) > 0 || len(unknown) > 0 {
			t.Errorf("%s: %+v %q", name, mistakes, unknown)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "ba", 1}, {"abc", "acb", 1}, {"abcd", "badc", 2}, {"abc", "ac", 1}, {"abc", "abxc", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got, back := editDistance(c.a, c.b), editDistance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%q to %q: %d and %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}
