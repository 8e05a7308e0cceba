package service

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
)

// Supervision notifies a service manager of the worker's state, by sd_notify(3). Without a manager it does nothing.
type Supervision struct {
	Send     func(state string) error
	Watchdog bool          // the manager kills a worker that doesn't send WATCHDOG=1 in time
	Every    time.Duration // between two checks of the worker; 0: there is no manager to notify

	// Started reports whether the configuration is valid, the admin server listens, and the broker is connected or waited
	// for. It must not depend on more: the manager would give up the start while the broker is down.
	Started func() bool
	Alive   func() error // as /livez
	Doing   func() string

	ready      bool
	lastStatus string // the last STATUS
}

// Supervise returns the supervision of a service by the manager that the environment names.
func Supervise(s *Service) (*Supervision, error) {
	allowed, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, config.BadInput("WATCHDOG_USEC and WATCHDOG_PID are the service manager's to set: %w", err)
	}
	v := &Supervision{
		Send:     func(state string) error { _, err := daemon.SdNotify(false, state); return err },
		Watchdog: allowed > 0, Started: s.started, Alive: s.alive, Doing: s.doing,
	}
	if os.Getenv("NOTIFY_SOCKET") != "" { // as daemon reads it
		v.Every = time.Second
	}
	if v.Watchdog {
		v.Every = min(v.Every, allowed/3)
	}
	return v, nil
}

// Run notifies the manager until ended is closed. The worker was asked to stop when ctx ends. Nothing depends on the
// notifications, so an error is only logged, once.
func (v *Supervision) Run(ctx context.Context, ended <-chan struct{}, log *zap.Logger) {
	if v.Every == 0 {
		<-ended
		return
	}
	tick := time.NewTicker(v.Every)
	defer tick.Stop()
	stop := ctx.Done()
	for {
		if err := v.notify(ctx.Err() != nil); err != nil {
			log.Warn("the service manager can't be notified", zap.Error(err))
			log = zap.NewNop()
		}
		select {
		case <-ended:
			return
		case <-stop:
			stop = nil
		case <-tick.C:
		}
	}
}

// notify sends what has changed, and WATCHDOG=1 each time the worker is alive.
func (v *Supervision) notify(stopping bool) error {
	var state []string
	status := v.Doing()
	if stopping {
		status = "finishing what is in hand"
	}
	if status != v.lastStatus {
		if stopping {
			state = append(state, daemon.SdNotifyStopping)
		}
		state = append(state, "STATUS="+oneLine(status))
	}
	ready := v.ready || v.Started()
	if ready && !v.ready {
		state = append(state, daemon.SdNotifyReady)
	}
	if v.Watchdog && v.Alive() == nil {
		state = append(state, daemon.SdNotifyWatchdog)
	}
	if len(state) == 0 {
		return nil
	}
	if err := v.Send(strings.Join(state, "\n")); err != nil {
		return err // all of it is sent again next time
	}
	v.ready, v.lastStatus = ready, status
	return nil
}

// oneLine removes line feeds, so that a text of an error can't become an assignment of its own, such as MAINPID=1.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// started reports whether nothing but the broker's answer can fail the start any more.
func (s *Service) started() bool {
	b, _, waiting := s.current()
	return b != nil || waiting != waitingForStart
}

// doing returns what the worker is doing, in one line.
func (s *Service) doing() string {
	stop, _ := health.Stopping(s.Conditions())
	if len(stop) == 0 {
		_, p, _ := s.current()
		return fmt.Sprintf("taking requests: %d in hand, %d actions followed", p.Consumer.InFlight(), p.Tracker.Following())
	}
	return "taking none: " + health.Join(stop)
}
