package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// durationMapper reads the durations that a person types behind a flag.
type durationMapper struct{}

// Decode is called by kong.
func (durationMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := typedDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no duration; give a number with its unit, such as 90s, 15m, 36h or 2d", text)
	}
	target.SetInt(int64(d))
	return nil
}

var days = regexp.MustCompile(`^(\d{1,5})d`)

// typedDuration is time.ParseDuration with days of 24 hours in front.
func typedDuration(text string) (time.Duration, error) {
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
