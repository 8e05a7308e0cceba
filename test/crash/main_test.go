// Package crash_test runs replicas of the real binary as processes against a broker process and a simulated API, kills
// them, and holds the whole state against the promises of docs/: nothing here is faked but the API.
package crash_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"example.com/unrestrict-worker/test/raced"
	"go.uber.org/goleak"
)

// worker is the binary under test.
var worker string

// Asked for by `make soak`; what CI runs without.
var (
	requests = amount("CRASH_REQUESTS", 300)
	kills    = amount("CRASH_KILLS", 20)
	rounds   = amount("CRASH_ROUNDS", 1)
)

func amount(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return n
	}
	return otherwise
}

func TestMain(m *testing.M) {
	if settings := os.Getenv(brokerVariable); settings != "" {
		serveBroker(settings)
		return
	}
	flag.Parse()
	// Nearly all of a test's time is spent waiting: for a lease, a window, an acknowledgement that never comes.
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == f.DefValue {
		_ = f.Value.Set("4")
	}
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	worker = filepath.Join(dir, "worker.exe")
	build := exec.Command("go", "build", fmt.Sprint("-race=", raced.On), "-buildvcs=false", "-o", worker, "example.com/unrestrict-worker/cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the worker: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}
