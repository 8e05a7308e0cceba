package service

import (
	"fmt"
	"io"
	"runtime/debug"
)

// version and commit are set by the linker (-X example.com/unrestrict-worker/internal/service.version=v1.2.3) where the
// build has no repository to read them from, as in the Dockerfile.
var version, commit string

// Build says what this program was built from.
type Build struct {
	Version string `json:"version"` // v1.2.3, a pseudo-version, or devel
	Commit  string `json:"commit"`  // empty where it isn't known
	Go      string `json:"go"`      // go1.26.8
}

// ThisBuild reads what the Go toolchain recorded in the program.
func ThisBuild() Build {
	b := Build{Version: version, Commit: commit}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && b.Commit == "":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true" && commit == "":
			dirty = "-dirty"
		}
	}
	b.Commit += dirty
	return b
}

// Write writes the build for people.
func (b Build) Write(w io.Writer) error {
	known := b.Commit
	if known == "" {
		known = "unknown"
	}
	_, err := fmt.Fprintf(w, "worker %s\ncommit %s\n%s\n", b.Version, known, b.Go)
	return err
}
