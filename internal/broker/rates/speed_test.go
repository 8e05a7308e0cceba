//go:build !race

package rates

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/message"
)

// TestHowFast measures what the README says under "How fast": when the last call of a bulk starts on a budget that was not used
// before, with what is kept for urgent requests and for look-ups. 5,000 are too many for the race detector, which others have.
func TestHowFast(t *testing.T) {
	page, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := strings.Join(strings.Fields(string(page)), " ")
	says := func(what string) {
		if !strings.Contains(readme, what) {
			t.Errorf("README.md does not say %q", what)
		}
	}
	const percent = 5 // WORKER_URGENT_RESERVE
	says(fmt.Sprintf("%d calls at the start of each minute, and 1,%d in the first quarter of each hour",
		100-budget.Floor(message.LaneBulk, 100, percent, 2), 1500-budget.Floor(message.LaneBulk, 1500, percent, 30)-1000))
	bubble(t, func(t *testing.T, w *world) {
		r := w.replica(budget.Limits(100, 1500))
		r.UrgentReserve = percent
		began, machines := time.Now(), map[int]string{100: "100", 1000: "1,000", 5000: "5,000"}
		for n := range 5000 {
			visit(t, r, "bulk")
			if text := machines[n+1]; text != "" {
				minutes := int(time.Since(began).Round(time.Minute).Minutes())
				took := fmt.Sprintf("%d min", minutes%60)
				if minutes >= 60 {
					took = fmt.Sprintf("%d h %s", minutes/60, took)
				}
				says("| " + text + " | " + took + " |")
			}
		}
	})
}
