package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// LockedError says that another process uses the embedded broker's store.
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

// lockStore locks the embedded broker's store for this process until the lock is closed. The server does not lock its store:
// two servers on one store would both acknowledge messages under the same sequence. The kernel releases the lock however the
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
	// Only for the LockedError of other processes, which names no process if this can't be written.
	_ = os.WriteFile(lock.Path(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
	return lock, nil
}
