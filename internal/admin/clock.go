package admin

import (
	"fmt"
	"strings"
	"time"
)

// Clock is a time for people, with its zone: what one pastes another may read elsewhere.
func Clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05Z07:00") }

// Roughly is a duration in its two largest units.
func Roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "under 1s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
