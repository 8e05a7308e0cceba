package session

import (
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/health"
)

// Condition is a condition in a line, with how long it has held and until when.
func Condition(c health.Condition, now time.Time) string {
	text := c.String()
	if d := now.Sub(c.Since); !c.Since.IsZero() && d >= time.Second {
		text += ", for " + admin.Roughly(d)
	}
	if !c.Until.IsZero() {
		text += ", until " + admin.Clock(c.Until)
	}
	if c.Replicas > 1 {
		text += fmt.Sprintf(", on %d replicas", c.Replicas)
	}
	return text
}
