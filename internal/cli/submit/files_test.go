package submit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// machineOf is the id of a machine of the tests.
func machineOf(n int) string { return fmt.Sprintf("%040x", n) }

func writeTestFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
