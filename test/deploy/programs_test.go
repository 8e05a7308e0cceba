package deploy

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeInstallsWhatThePartsNeed: each program that a part of "make deploy-test" asks for is brought by a package in the one
// line of deploy/README.md.
func TestReadmeInstallsWhatThePartsNeed(t *testing.T) {
	line := regexp.MustCompile(`(?m)^# apt-get install .*$`).FindString(string(read(t, repository+"/deploy/README.md")))
	packages := strings.Fields(line)
	otherwise := map[string]string{ // where the package is not called as the program is
		"busybox": "busybox-static", "xz": "xz-utils", "systemd-analyze": "systemd", "apt-get": "apt-get",
	}
	scripts, err := filepath.Glob("*.sh")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`(?m)^(?:if |elif |.*&& )?has (?:"[^"]*"|\w+) ([a-z0-9 -]+)(?: \|\|.*|; then)$`)
	found := 0
	for _, script := range scripts {
		for _, m := range asked.FindAllStringSubmatch(string(read(t, script)), -1) {
			for program := range strings.FieldsSeq(m[1]) {
				found++
				name := otherwise[program]
				if name == "" {
					name = program
				}
				if !slices.Contains(packages, name) {
					t.Errorf("%s asks for %s, and %s does not install %s", script, program, line, name)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("found only %d programs", found)
	}
}
