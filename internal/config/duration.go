package config

import (
	"regexp"
	"strconv"
	"time"
)

var days = regexp.MustCompile(`^(\d{1,5})d`)

// ParseDuration is time.ParseDuration with days of 24 hours in front.
func ParseDuration(text string) (time.Duration, error) {
	m := days.FindStringSubmatch(text)
	if m == nil {
		return time.ParseDuration(text)
	}
	n, err := strconv.Atoi(m[1])
	d := time.Duration(n) * 24 * time.Hour
	if rest := text[len(m[0]):]; err == nil && rest != "" {
		var more time.Duration
		more, err = time.ParseDuration(rest)
		d += more
	}
	return d, err
}
