package service

import (
	"cmp"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// version and commit are set by the linker (-X example.com/unrestrict-worker/internal/service.version=v1.2.3) where the
// build has no repository to read them from, as in the Dockerfile.
var version, commit string

// Build is what this program was built from.
type Build struct {
	Version string `json:"version"` // v1.2.3, a pseudo-version, or devel
	Commit  string `json:"commit"`  // empty if it isn't known
	Go      string `json:"go"`      // go1.26.8
}

// ThisBuild reads what the Go toolchain recorded in the program.
func ThisBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: version, Commit: commit}
	}
	stamped := map[string]string{}
	for _, s := range info.Settings {
		stamped[s.Key] = s.Value
	}
	built := stamped["vcs.revision"]
	if stamped["vcs.modified"] == "true" {
		built += "-dirty"
	}
	return Build{
		Version: cmp.Or(version, strings.Trim(info.Main.Version, "()"), "devel"), // "(devel)" where Go knows none
		Commit:  cmp.Or(commit, built), Go: info.GoVersion,
	}
}

// Write writes the build for people.
func (b Build) Write(w io.Writer) error {
	_, err := fmt.Fprintf(w, "worker %s\ncommit %s\n%s\n", b.Version, cmp.Or(b.Commit, "unknown"), b.Go)
	return err
}
