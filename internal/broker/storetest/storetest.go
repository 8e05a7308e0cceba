//go:build unix

// Package storetest makes a disk full for a test.
package storetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Alone runs the test that calls it in a process of its own, and returns true in the one that waited for it: a bound on every
// file that a process writes would fail the log of go test, too.
func Alone(t *testing.T) bool {
	t.Helper()
	const name = "UNRESTRICT_TEST_ALONE"
	if os.Getenv(name) == t.Name() {
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.timeout=5m", "-test.run=^"+t.Name()+"$") //nolint:gosec // it is this program
	cmd.Env = append(os.Environ(), name+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return true
}

// Bound bounds the size of every file that this process writes, which fails a write as a full disk does, until lift or the
// test's end. Its test runs Alone.
func Bound(t *testing.T, bytes uint64) (lift func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(soft uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: soft, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(bytes)
	t.Cleanup(func() { set(before.Cur) })
	return func() { set(before.Cur) }
}
