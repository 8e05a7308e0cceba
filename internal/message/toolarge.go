package message

import (
	"errors"
)

// ErrTooLarge is a write that can never succeed: the broker takes no message of that size, however often it is tried. It is
// its request's own failure, and no fault of the system.
var ErrTooLarge = errors.New("larger than the broker takes")
