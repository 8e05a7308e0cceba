package defender

import (
	"context"
	"time"
)

// Uses of a call, as Budget.Take names them.
const (
	useUnrestrict = "unrestrict" // a POST
	UseLookup     = "lookup"     // finding out whether a call took place
	UseFollow     = "follow"     // looking up the actions being followed
)

// Budget grants HTTP exchanges with the API, for all replicas of one tenant together. A grant is for one exchange, is
// spent when it is made and can't be returned. All methods are safe for concurrent use.
type Budget interface {
	// Take waits until one call of the given use ("unrestrict", "lookup", "follow") is free and returns the instant of the
	// grant, with its monotonic reading. It ends when ctx does. Whatever error it gives reaches the client's caller.
	Take(ctx context.Context, use string) (time.Time, error)
	// Fresh says whether a call granted at that instant may still start now: not too long ago and not closed since.
	// It is asked just before each write and must not block.
	Fresh(granted time.Time) bool
	// Close forbids the calls of every replica for d from now, durably before it returns; an end that is earlier than one
	// already set changes nothing. It does not retry.
	Close(ctx context.Context, d time.Duration) error
}
