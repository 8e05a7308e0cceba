package cli

import (
	"fmt"
	"reflect"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/internal/config"
)

// durationMapper reads the durations that a person types behind a flag.
type durationMapper struct{}

// Decode is called by kong.
func (durationMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no duration; give a number with its unit, such as 90s, 15m, 36h or 2d", text)
	}
	target.SetInt(int64(d))
	return nil
}
