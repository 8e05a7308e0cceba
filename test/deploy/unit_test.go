package deploy

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// TestUnitGivesTheWorkerTime: what the unit says fits what the worker does.
func TestUnitGivesTheWorkerTime(t *testing.T) {
	set := unitOf(t, "unrestrict-worker")
	if set["Service.Type"] != "notify" {
		t.Errorf("Type=%s, but the worker says when it is ready", set["Service.Type"])
	}
	for name, atLeast := range map[string]time.Duration{
		"WatchdogSec":    10 * time.Second, // the worker notifies every second; a loaded machine must not kill it
		"TimeoutStopSec": 35 * time.Second, // WORKER_SHUTDOWN_TIMEOUT, and the broker's 5 s twice
	} {
		if d, err := time.ParseDuration(set["Service."+name]); err != nil || d < atLeast {
			t.Errorf("%s=%s, want %s at least (%v)", name, set["Service."+name], atLeast, err)
		}
	}
}

// unitOf are the settings of a unit, the last of each name.
func unitOf(t *testing.T, name string) map[string]string {
	t.Helper()
	options, err := unit.DeserializeOptions(bytes.NewReader(read(t, repository+"/deploy/systemd/"+name+".service")))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for _, o := range options {
		set[o.Section+"."+o.Name] = o.Value
	}
	return set
}

// TestUnitsAreEquallyClosed: what confines the worker confines the intake, which has no credential of Defender's.
func TestUnitsAreEquallyClosed(t *testing.T) {
	worker, intake := unitOf(t, "unrestrict-worker"), unitOf(t, "unrestrict-intake")
	own := []string{"Type", "ExecStart", "Environment", "EnvironmentFile", "LoadCredential", "WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "StateDirectory"}
	for name, value := range worker {
		if bare, is := strings.CutPrefix(name, "Service."); is && !slices.Contains(own, bare) && intake[name] != value {
			t.Errorf("%s=%s of the worker is %q of the intake", bare, value, intake[name])
		}
	}
	if text := string(read(t, repository+"/deploy/systemd/unrestrict-intake.service")); strings.Contains(text, "AZURE") || strings.Contains(text, "DEFENDER") {
		t.Error("the intake has a credential of Defender's")
	}
}

// TestVariablesExist: each variable of the worker's that something in deploy sets is in the reference. What deploy/nats has
// are the NATS server's own.
func TestVariablesExist(t *testing.T) {
	reference := string(read(t, repository+"/docs/configuration.md"))
	variable := regexp.MustCompile(`\b(?:WORKER|DEFENDER|NATS|LOG)_[A-Z]+(?:_[A-Z]+)*\b`)
	found := 0
	err := filepath.WalkDir(repository+"/deploy", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, ".schema.json") || filepath.Dir(path) == filepath.Clean(repository+"/deploy/nats") {
			return err
		}
		for _, name := range variable.FindAllString(string(read(t, path)), -1) {
			if found++; !strings.Contains(reference, "| `"+name+"` |") {
				t.Errorf("%s names %s, which docs/configuration.md does not have", path, name)
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d variables: %v", found, err)
	}
}

// TestBrokersAreOfOneVersion: the broker that compose.yaml runs, the one that its test runs and the embedded one.
func TestBrokersAreOfOneVersion(t *testing.T) {
	version := regexp.MustCompile(`nats-server/v2 v(\S+)`)
	embedded := version.FindSubmatch(read(t, repository+"/go.mod"))
	tested := version.FindSubmatch(read(t, repository+"/tools/deploy.mod"))
	composed := regexp.MustCompile(`library/nats:([^\s@]+)`).FindSubmatch(read(t, repository+"/deploy/compose.yaml"))
	if embedded == nil || tested == nil || composed == nil || !bytes.Equal(embedded[1], tested[1]) || !bytes.Equal(embedded[1], composed[1]) {
		t.Errorf("go.mod has %s, tools/deploy.mod %s, compose.yaml %s", embedded, tested, composed)
	}
}
