package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
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

// lockStore takes the embedded broker's store for this process until the lock is closed. The server has no lock of its own:
// two of them on one store both acknowledge messages under the same sequence. The kernel gives the lock back however the
// process ends; the file stays.
func lockStore(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the embedded broker's store (WORKER_DATA_DIR): %w", err)
	}
	lock := flock.New(filepath.Join(dir, "LOCK"), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	taken, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the embedded broker's store (WORKER_DATA_DIR): %w", err)
	}
	if !taken {
		owner, _ := os.ReadFile(lock.Path())
		return nil, &LockedError{Dir: dir, Owner: strings.TrimSpace(string(owner))}
	}
	// For the error of others alone: where it can't be written, they name no process.
	_ = os.WriteFile(lock.Path(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
	return lock, nil
}
