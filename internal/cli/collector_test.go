package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

// The garbage collector runs less often than usual, unless somebody has bounded the memory or set how often it runs.
func TestCollectorIsRelaxedWhereMemoryIsNotBounded(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{"GOGC=": "200", "GOMEMLIMIT=200MiB": "100", "GOGC=50": "50"} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			env := terminal(t.TempDir(), "DEFENDER_AUTH=token-file", "DEFENDER_TOKEN_FILE=none", variable)
			p := start(t, env, []string{"worker", "run"}, true)
			var at string
			p.until(t, func(line string) bool {
				var entry struct{ Msg, Addr string }
				if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "admin server listens" {
					at = entry.Addr
				}
				return at != ""
			})
			if metrics := scrape(t, at); !strings.Contains(metrics, "go_gc_gogc_percent "+want+"\n") {
				t.Errorf("go_gc_gogc_percent is not %s", want)
			}
			p.stop(t)
		})
	}
}
