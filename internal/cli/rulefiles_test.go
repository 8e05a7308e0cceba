package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
	"example.com/unrestrict-worker/internal/service"
)

// TestRuleFilesInTheLog: an edit that breaks a file is told once, and so is one that mends it or changes who is trusted.
func TestRuleFilesInTheLog(t *testing.T) {
	dir := t.TempDir()
	ann, annErr := writeSeed(filepath.Join(dir, "ann.nk"))
	bob, bobErr := writeSeed(filepath.Join(dir, "bob.nk"))
	signers, rules := filepath.Join(dir, "signers"), filepath.Join(dir, "policy.yaml")
	write := func(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
	if err := errors.Join(annErr, bobErr, write(signers, ann+" ann\n"), write(rules, "default: {}\n")); err != nil {
		t.Fatal(err)
	}
	s := &service.Service{}
	var err1, err2 error
	s.Settings.Accept.Signers, err1 = message.SignersFile(signers)
	s.Settings.Accept.Policy, err2 = policy.Load(rules, s.Settings.Accept.Signers)
	core, logs := observer.New(zapcore.DebugLevel)
	s.Log = zap.New(core)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.WatchRules(watching) }()
	told := func(n int) observer.LoggedEntry {
		for logs.Len() < n && service.Pause(ctx, 10*time.Millisecond) {
		}
		if logs.Len() != n {
			t.Fatalf("%d lines, want %d: %v", logs.Len(), n, logs.All())
		}
		return logs.All()[n-1]
	}
	if err := errors.Join(err1, err2, write(signers, ann+" ann\nnonsense\n")); err != nil {
		t.Fatal(err)
	}
	if e := told(1); e.Level != zapcore.WarnLevel || e.ContextMap()["rules"] != "signers" || !slices.Equal(s.Settings.Accept.Signers.Names(), []string{"ann"}) {
		t.Errorf("%+v", e)
	}
	if err := write(rules, "defaults: {}\n"); err != nil {
		t.Fatal(err)
	}
	if e := told(2); e.Level != zapcore.WarnLevel || e.ContextMap()["rules"] != "policy" {
		t.Errorf("%+v", e)
	}
	if err := write(rules, "default: {ticket_required: true}\n"); err != nil {
		t.Fatal(err)
	}
	if e := told(3); e.Level != zapcore.InfoLevel || e.ContextMap()["rules"] != "policy" {
		t.Errorf("%+v", e)
	}
	if err := write(signers, bob+" bob\n"); err != nil {
		t.Fatal(err)
	}
	if e := told(5); e.Message != "the trusted signers have changed" {
		t.Errorf("%+v", e)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
