package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// sly is text that shows something else than it holds: a right-to-left override, a zero-width space, an isolate, a
// filler that draws nothing, a no-break space and a variation selector.
const sly = "INC\u202e4711\u200b\u2066\u3164\u00a0\ufe0f"

// TestNothingUnseenReachesATerminal: what others wrote is shown spelled out by every command that people read.
func TestNothingUnseenReachesATerminal(t *testing.T) {
	s := runSystem(t, nil)
	env := map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir(), "LOG_FORMAT": "console"}
	good, err := json.Marshal(map[string]any{"id": sly, "machineId": MachineOf(1), "comment": sly, "ticket": sly, "batch": sly})
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{string(good), `{"id":"` + sly + `","machineId":"` + sly + `","comment":"c"}`} {
		if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.work.Broker.JS().Publish(t.Context(), "remediation.results", []byte(`{"requestId":"x","outcome":"`+sly+`","machineId":"`+sly+`"}`)); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(func() string { _, out, _ := command(t, env, "why", sly); return out }(), "ended: succeeded") {
		if t.Context().Err() != nil {
			t.Fatal("it never ended")
		}
	}
	for !strings.Contains(func() string { _, out, _ := command(t, env, "deadletter", "list"); return out }(), "malformed") {
		if t.Context().Err() != nil {
			t.Fatal("it was never rejected")
		}
	}
	command(t, env, "pause", "--reason", sly)
	for _, args := range [][]string{
		{"results", "--follow=false"},
		{"why", sly},
		{"why", "no " + sly},
		{"deadletter", "list"},
		{"deadletter", "show", "--all"},
		{"status"},
		{"deadletter", "show", sly},
	} {
		_, stdout, stderr := command(t, env, args...)
		for _, r := range stdout + stderr {
			if r != '\n' && (!unicode.IsPrint(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r)) {
				t.Errorf("worker %q shows %U in %q", args, r, stdout+stderr)
				break
			}
		}
		if !strings.Contains(stdout+stderr, `\u{202e}`) {
			t.Errorf("worker %q spells nothing out: %q", args, stdout+stderr)
		}
	}
}

func TestLogForPeopleSpellsOut(t *testing.T) {
	var out bytes.Buffer
	log, _ := service.NewLogger(config.Log{Level: "info", Format: "console"}, &out)
	log.Info("taken", zap.String("id", sly))
	if got := out.String(); !strings.Contains(got, "taken\t") || !strings.Contains(got, `INC\u{202e}4711\u{200b}`) || !strings.HasSuffix(got, "\n") {
		t.Errorf("got %q", got)
	}
}
