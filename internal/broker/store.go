package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// storeFailed matches the lines of the server's log after which a stream, a consumer or all of JetStream accepts no more
// writes until the server is restarted: the server keeps the error, and reports it only in its log. [nats-server filestore.go
// and stream.go setWriteErr, jetstream.go handleOutOfSpace and handleWritePermissionError]
var storeFailed = regexp.MustCompile(`(?i)critical write error|will be DISABLED|disabling JetStream`)

// StoreFault is why the embedded broker can't store anything; the zero value: it can.
type StoreFault struct {
	Reason string
	Since  time.Time
}

const (
	// storeRoom is how many bytes must be free before the server is restarted: with fewer it would fail again at once.
	storeRoom = 8 << 20
	// restartPause is the least time between two restarts; it doubles up to restartPauseMax while the store fails again.
	restartPause    = 5 * time.Second
	restartPauseMax = time.Minute
	// shutdownIn bounds the shutdown of a server whose store has failed.
	shutdownIn = 30 * time.Second
)

// watchStore restarts the server whenever its store has failed and can be written again. If the old server does not shut down,
// failed is called instead, because two servers must not use one store.
func (e *embedded) watchStore(ctx context.Context, failed func(error)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ctx bounds only the start
	done := make(chan struct{})
	e.stopped = func() { cancel(); <-done }
	go func() {
		defer close(done)
		pause, healed := restartPause, time.Time{}
		for {
			select {
			case <-ctx.Done():
				return
			case reason := <-e.faults:
				e.setFault(StoreFault{Reason: reason, Since: time.Now()})
			}
			if time.Since(healed) > 2*restartPauseMax {
				pause = restartPause
			}
			if err := e.heal(ctx, healed.Add(pause), pause); err != nil {
				failed(err)
				return
			}
			pause, healed = min(2*pause, restartPauseMax), time.Now()
		}
	}()
}

// heal waits until the store can be written, and restarts the server, but not before notBefore. Acknowledged messages are in
// the store; publishers publish again what was not acknowledged.
func (e *embedded) heal(ctx context.Context, notBefore time.Time, pause time.Duration) error {
	e.log.Error("the embedded broker's store failed: nothing can be stored until the disk can be written again", zap.String("store", e.opts.StoreDir), zap.String("reason", e.Fault().Reason))
	for wait(ctx, time.Second) == nil {
		if err := writable(e.opts.StoreDir); err != nil {
			e.setFault(StoreFault{Reason: err.Error(), Since: e.Fault().Since})
			continue
		}
		if time.Now().Before(notBefore) {
			continue
		}
		if err := e.shutDown(); err != nil {
			return err
		}
		select {
		case <-e.faults: // a fault of another stream, before the shutdown
		default:
		}
		if err := e.start(); err != nil {
			e.setFault(StoreFault{Reason: err.Error(), Since: e.Fault().Since})
			e.log.Error("the embedded broker can't be restarted yet", zap.Error(err))
		} else {
			e.log.Warn("the embedded broker was restarted: its store can be written again", zap.String("store", e.opts.StoreDir))
			e.setFault(StoreFault{})
			return nil
		}
		notBefore = time.Now().Add(pause)
	}
	return nil
}

// shutDown stops the running server, if there is one.
func (e *embedded) shutDown() error {
	e.mu.Lock()
	s := e.server
	e.server = nil
	e.mu.Unlock()
	if s == nil {
		return nil
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Shutdown()
		s.WaitForShutdown()
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(shutdownIn):
		return errors.New("the embedded broker's store failed, and the server in it does not stop: this process must be restarted")
	}
}

func (e *embedded) setFault(f StoreFault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = f
}

// Fault is why nothing can be stored; the zero value: there is no fault.
func (e *embedded) Fault() StoreFault {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fault
}

// writable tries to write to a folder's file system: quotas, limits and a read-only file system show only when something is written.
func writable(dir string) error {
	if free, _, err := space(dir); err == nil && free < storeRoom {
		return fmt.Errorf("%s: %d MiB are free on its file system, and %d MiB must be before the embedded broker is restarted: free some space", dir, free>>20, storeRoom>>20)
	}
	f, err := os.Create(filepath.Join(dir, "writable"))
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 1<<20))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// nearlyFull is how full the store or its file system is when a warning is given.
const nearlyFull = 80 // percent

// nearlyFullReason says how full the store or its file system is; "": both are less than nearlyFull.
func (e *embedded) nearlyFullReason() string {
	used := e.used()
	free, size, err := space(e.opts.StoreDir)
	if err != nil {
		free, size = embeddedMaxStore, embeddedMaxStore // not known
	}
	switch own, disk := fullness(used, free, size); {
	case own >= nearlyFull:
		return fmt.Sprintf("the embedded broker's store in %s has %d%% of the %d MiB that it may take", e.opts.StoreDir, own, embeddedMaxStore>>20)
	case disk >= nearlyFull:
		return fmt.Sprintf("the file system of the embedded broker's store, %s, is %d%% full, %d MiB are free", e.opts.StoreDir, disk, free>>20)
	}
	return ""
}

// fullness is how many percent of its own limit a store uses, and how many percent of its file system all users use together.
// The file system counts only if it can be full before the store's own limit is reached.
func fullness(used, free, size uint64) (own, disk uint64) {
	own = 100 * used / embeddedMaxStore
	if left := embeddedMaxStore - min(used, embeddedMaxStore); size > 0 && free < left {
		disk = 100 - 100*free/size
	}
	return own, disk
}

// used is how many bytes JetStream uses in the store.
func (e *embedded) used() uint64 {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	if s == nil {
		return 0
	}
	jsz, err := s.Jsz(&server.JSzOptions{})
	if err != nil {
		return 0
	}
	return jsz.Store
}
