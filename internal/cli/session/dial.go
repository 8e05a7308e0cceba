package session

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/service"
)

// DialForCommand connects to the broker of a running worker. The first connection is not logged, because the command's
// output shows it; a reconnection is.
func DialForCommand(ctx context.Context, env *Env) (*broker.Broker, error) {
	cfg := config.BrokerConfig(env.Settings)
	cfg.ClientName = "unrestrict-worker command"
	log, level := env.Logger()
	if usual := level.Level(); usual == zap.InfoLevel {
		level.SetLevel(zap.WarnLevel)
		defer level.SetLevel(usual)
	}
	return broker.Dial(ctx, cfg, log)
}

// CloseAfterCommand closes a connection of DialForCommand.
//
//nolint:contextcheck,nolintlint // the command's own context has often ended by then; contextcheck applies this at the calls
func CloseAfterCommand(b *broker.Broker) {
	ctx, cancel := context.WithTimeout(context.Background(), service.CloseIn)
	defer cancel()
	_ = b.Close(ctx) // nothing is waiting to be sent: what was published was acknowledged
}

// FollowResults is Follow, with an error that says what to do if no worker has made the stream yet.
func FollowResults(ctx context.Context, b *broker.Broker, o broker.FollowOptions, fn func(broker.Message) error) error {
	return AdviseMissing(b.Follow(ctx, b.Names().ResultsStream, o, fn))
}

// AdviseMissing adds to the error of a missing stream what to do about it.
func AdviseMissing(err error) error {
	if broker.IsMissing(err) {
		return fmt.Errorf("%w: start `worker run`, which creates it, or check WORKER_RESULTS_STREAM", err)
	}
	return err
}
