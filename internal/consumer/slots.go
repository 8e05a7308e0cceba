package consumer

import (
	"context"
	"time"
)

// slot takes a slot. Where all were in use it gives others a moment to come free too: then the deliveries are short and
// many, and one pull request for several of them costs the broker and us a fraction of one for each.
func (c *Consumer) slot(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.moreSlots(1) == 1 {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case c.places <- struct{}{}:
	}
	select {
	case <-ctx.Done():
		<-c.places
		return context.Cause(ctx)
	case c.slots <- struct{}{}:
	}
	if !sleep(ctx, gather) {
		c.leave()
		return context.Cause(ctx)
	}
	return nil
}

// gather is well below what one call to the API takes.
const gather = time.Millisecond

// moreSlots takes up to so many slots, as many as there are.
func (c *Consumer) moreSlots(most int) (n int) {
	for ; n < most; n++ {
		select {
		case c.places <- struct{}{}:
		default:
			return n
		}
		select {
		case c.slots <- struct{}{}:
		default:
			<-c.places
			return n
		}
	}
	return n
}

// leave gives a slot back, and the place with it.
func (c *Consumer) leave() {
	<-c.slots
	<-c.places
}
