package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// logged are the lines of a JSON log.
func logged(t *testing.T, log string) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(log) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestEqualWarningsAreSampled: of a flood of equal warnings some are written, the first among them; of anything else all.
func TestEqualWarningsAreSampled(t *testing.T) {
	const flood = 2000
	var out bytes.Buffer
	log, _ := service.NewLogger(config.Log{Level: "debug", Format: "json"}, &out)
	for n := range flood {
		for _, level := range []zapcore.Level{zap.DebugLevel, zap.InfoLevel, zap.WarnLevel, zap.ErrorLevel} {
			log.Log(level, "flood", zap.Int("n", n))
		}
		log.Warn(fmt.Sprint("warning ", n))
	}
	equal, different := map[string]int{}, 0
	for _, line := range logged(t, out.String()) {
		if line["msg"] != "flood" {
			different++
			continue
		}
		level := line["level"].(string)
		if equal[level]++; equal[level] == 1 && line["n"] != float64(0) {
			t.Errorf("the first %s is number %v", level, line["n"])
		}
	}
	if equal["debug"] != flood || equal["info"] != flood || equal["error"] != flood || different != flood {
		t.Errorf("lines are missing: %v, and %d warnings that differ", equal, different)
	}
	if equal["warn"] < 10 || equal["warn"] > flood/2 {
		t.Errorf("%d warnings are written", equal["warn"])
	}
}

// TestLevelChangesWhileRunning: sampling leaves the level as it can be set.
func TestLevelChangesWhileRunning(t *testing.T) {
	var out bytes.Buffer
	log, level := service.NewLogger(config.Log{Level: "error", Format: "json"}, &out)
	log.Warn("not yet")
	level.SetLevel(zap.WarnLevel)
	log.Named("part").With(zap.Int("n", 1)).Warn("now")
	if lines := logged(t, out.String()); len(lines) != 1 || lines[0]["msg"] != "now" || lines[0]["logger"] != "part" || lines[0]["n"] != float64(1) {
		t.Errorf("%v", lines)
	}
}

// traceparentOf is that of publisher n.
func traceparentOf(n int) string { return fmt.Sprintf("00-%032x-00f067aa0ba902b7-01", n) }

// TestOutcomesAreNeverSampled floods a worker with messages that are rejected: each has its line, with what finds it.
func TestOutcomesAreNeverSampled(t *testing.T) {
	const flood = 400
	var out bytes.Buffer
	s, err := newSystem(t.TempDir())
	t.Cleanup(s.close)
	s.log = &out
	if err = errors.Join(err, s.start(context.WithoutCancel(t.Context()), nil)); err != nil {
		t.Fatal(err)
	}
	b := s.work.Broker
	for n := range flood {
		h := message.Header{"Traceparent": {traceparentOf(n + 1)}}
		if _, err := b.Publish(t.Context(), message.LaneNormal, h, []byte(`{"comment":"no machine"}`)); err != nil {
			t.Fatal(err)
		}
	}
	for lastSequence(t, b, b.Names().ResultsStream) < flood && service.Pause(t.Context(), 10*time.Millisecond) {
	}
	s.stop()
	seen := map[any]bool{}
	for _, line := range logged(t, out.String()) {
		if line["msg"] != "message rejected" {
			continue
		}
		seen[line["request_id"]] = true
		n, err := strconv.Atoi(strings.TrimPrefix(fmt.Sprint(line["request_id"]), "REMEDIATION:"))
		if err != nil || traceparentOf(n)[3:35] != line["trace_id"] || line["code"] != "malformed" {
			t.Fatalf("%v", line)
		}
	}
	if len(seen) != flood {
		t.Errorf("%d of %d outcomes are in the log", len(seen), flood)
	}
}
