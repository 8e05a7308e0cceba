package cli

import (
	"fmt"
	"html"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/cli/deadletter"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// deadLetterCodes are the worker's own codes that the runbook has among those of a dead letter.
func deadLetterCodes(t *testing.T) (codes []string) {
	t.Helper()
	page, err := os.ReadFile(runbookPath)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "### Of the request (")
	rejected, rest, _ := strings.Cut(rest, "Outcome `cancelled`")
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(rejected, -1) {
		codes = append(codes, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `abandoned` \\|").FindAllStringSubmatch(rest, -1) {
		codes = append(codes, m[1])
	}
	if len(codes) < 15 {
		t.Fatalf("the runbook has %q", codes)
	}
	return codes
}

// TestReplaysAreToldAlike: of a dead letter of each code there is, page, list, show and why say in the same words what a replay
// comes to; replay says it before it publishes one that fails.
func TestReplaysAreToldAlike(t *testing.T) {
	t.Parallel()
	s := runSystem(t, nil)
	env := map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}
	if status, out, errs := command(t, env, "pause", "--reason", "to look"); status != 0 {
		t.Fatal(out, errs)
	}
	b, codes := s.work.Broker, append(deadLetterCodes(t), "OsPlatformNotSupported")
	for i, code := range codes {
		err := b.NewPublisher().DeadLetter(t.Context(), message.DeadLetter{
			Delivery: message.Delivery{
				Stream: b.Names().Stream, Sequence: uint64(1000 + i), Subject: b.Names().Subject, Published: time.Now(),
				Data: fmt.Appendf(nil, `{"machineId":%q,"comment":"c"}`, MachineOf(i)),
			},
			Code: code, Message: "as it was", RequestID: "a-" + code, Run: 1, Time: time.Now(),
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
	}
	letters, err := deadletter.ReadLetters(t.Context(), b, func(deadletter.Letter) bool { return true })
	if err != nil || len(letters) != len(codes) {
		t.Fatal(len(letters), err)
	}
	_, list, _ := command(t, env, "deadletter", "list")
	page := ""
	s.until(t, "the page", func() bool {
		page = html.UnescapeString(fetchText(t, s, "/fragment"))
		return strings.Contains(page, "a-OsPlatformNotSupported")
	})
	for i, l := range slices.Backward(letters) {
		text, seq := l.Replay.Text, strconv.FormatUint(l.Seq, 10)
		_, show, _ := command(t, env, "deadletter", "show", "--seq", seq)
		_, why, _ := command(t, env, "why", l.Dead.RequestID, "--json")
		_, replay, _ := command(t, env, "deadletter", "replay", "--seq", seq)
		for where, said := range map[string]string{"list": list, "show": show, "why": why} {
			if !strings.Contains(said, text) {
				t.Errorf("%s: %s does not say %q:\n%s", l.Dead.Code, where, text, said)
			}
		}
		if i >= len(letters)-12 && !strings.Contains(page, text) {
			t.Errorf("%s: the page does not say %q", l.Dead.Code, text)
		}
		if says := strings.Contains(replay, text); says != (l.Replay.Chance != service.ReplayHelps) || strings.Contains(replay, ", as run 2") != (l.Replay.Chance != service.ReplayRefused) {
			t.Errorf("%s: replay says %s", l.Dead.Code, replay)
		}
		if l.Dead.Code != "OsPlatformNotSupported" && text == letters[len(letters)-1].Replay.Text {
			t.Errorf("%s has no row of its own", l.Dead.Code)
		}
	}
}
