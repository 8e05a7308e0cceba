//go:build unix

// Package storetest simulates a full disk for a test.
package storetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Alone runs the calling test in a process of its own. It returns true in the parent process, after it has waited for the
// child. Without that, the bound on the files of the process would also make the log of go test fail.
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

// Bound bounds the size of every file that this process writes, until lift or the test's end. A write beyond it fails as on a
// full disk. The test must run Alone.
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
