package rates

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
)

// TestHowFast measures what the README says under "How fast": how long a bulk waits for its calls on a budget that was not
// used before, with what is kept for urgent requests.
func TestHowFast(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T, w *world) {
		r := w.replica(budget.Limits(100, 1500))
		r.UrgentReserve = 5
		began := time.Now()
		for n := range 5000 {
			visit(t, r, "bulk")
			switch n + 1 {
			case 100, 1000, 5000:
				row := fmt.Sprintf("| %d | %s |", n+1, time.Since(began).Round(time.Minute))
				t.Log(row, time.Since(began))
				if !strings.Contains(string(readme), row) {
					t.Errorf("README.md does not have %s", row)
				}
			}
		}
	})
}
