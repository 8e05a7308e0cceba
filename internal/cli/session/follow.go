package session

import (
	"context"
	"fmt"

	"example.com/unrestrict-worker/internal/broker"
)

// FollowResults is Follow, with what to do where no worker has made the stream yet.
func FollowResults(ctx context.Context, b *broker.Broker, o broker.FollowOptions, fn func(broker.Message) error) error {
	return AdviseMissing(b.Follow(ctx, b.Names().ResultsStream, o, fn))
}

func AdviseMissing(err error) error {
	if broker.IsMissing(err) {
		return fmt.Errorf("%w: start `worker run`, which creates it, or check WORKER_RESULTS_STREAM", err)
	}
	return err
}
