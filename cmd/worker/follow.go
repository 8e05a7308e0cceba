package main

import (
	"context"
	"fmt"

	"example.com/unrestrict-worker/internal/broker"
)

// followResults is Follow, with what to do where no worker has made the stream yet.
func followResults(ctx context.Context, b *broker.Broker, o broker.FollowOptions, fn func(broker.Message) error) error {
	return adviseMissing(b.Follow(ctx, b.Names().ResultsStream, o, fn))
}

func adviseMissing(err error) error {
	if broker.IsMissing(err) {
		return fmt.Errorf("%w: start `worker run`, which creates it, or check WORKER_RESULTS_STREAM", err)
	}
	return err
}
