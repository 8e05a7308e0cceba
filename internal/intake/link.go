package intake

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/service"
)

// link is the connection to the broker, which may come up after the intake and go down before it.
type link struct {
	cfg  broker.Config
	log  *zap.Logger
	conn atomic.Pointer[broker.Broker]
}

// run connects, and reconnects when the client library has given up, until ctx ends. It returns an error if the broker
// refuses the sign-in.
func (l *link) run(ctx context.Context) error {
	for ctx.Err() == nil {
		conn, err := l.dial(ctx)
		if _, refused := errors.AsType[*broker.RefusedError](err); refused {
			return err
		}
		if err != nil {
			l.log.Warn("no connection to the broker; waiting for it", zap.Error(err))
			service.Pause(ctx, time.Second)
			continue
		}
		l.conn.Store(conn)
		select {
		case <-ctx.Done():
		case <-conn.Lost():
		}
		l.conn.Store(nil)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), service.CloseIn)
		_ = conn.Close(last) // no client got a 2xx for a publish that was not acknowledged
		cancel()
	}
	return nil
}

func (l *link) dial(ctx context.Context) (*broker.Broker, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return broker.Dial(ctx, l.cfg, l.log)
}

// get returns the connection; nil while there is none.
func (l *link) get() *broker.Broker {
	conn := l.conn.Load()
	if conn == nil || conn.Connected() != nil {
		return nil
	}
	return conn
}
