package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// LockedError says that another process has the embedded broker's store.
type LockedError struct {
	Dir   string
	Owner string // its process id, if it could be read
}

func (e *LockedError) Error() string {
	owner := "another process"
	if e.Owner != "" {
		owner = "process " + e.Owner
	}
	return fmt.Sprintf("the embedded broker's store %s is in use by %s: stop that one, give this worker a store of its own "+
		"(WORKER_DATA_DIR), or let it use the other's broker (NATS_URL)", e.Dir, owner)
}

// lockStore takes the embedded broker's store for this process until the file
// is closed. The server has no lock of its own: two of them on one store both
// acknowledge messages under the same sequence. The kernel gives the lock back
// however the process ends; the file stays.
func lockStore(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the embedded broker's store (WORKER_DATA_DIR): %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the embedded broker's store (WORKER_DATA_DIR): %w", err)
	}
	err = lockFile(f)
	if errors.Is(err, errLocked) {
		owner, _ := os.ReadFile(f.Name())
		_ = f.Close()
		return nil, &LockedError{Dir: dir, Owner: strings.TrimSpace(string(owner))}
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the embedded broker's store %s: %w", dir, err)
	}
	return f, nil
}
