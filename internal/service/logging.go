package service

import (
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
)

// NewLogger makes the program's logger and the level that can be changed while
// it runs. Without a format it writes lines for people on a terminal and JSON
// elsewhere; times are RFC 3339 in UTC.
//
// Only warnings are sampled. They report lasting faults, such as a broker that is
// down, and may come once for each of 10,000 requests. Of equal ones the first ten
// in a second are written, then each hundredth. Outcomes, decisions and changes of
// state are Info or Error, and all of them are written. So is Debug, because
// somebody has asked for it.
func NewLogger(s config.Log, w io.Writer) (*zap.Logger, zap.AtomicLevel) {
	level := zap.NewAtomicLevel()
	_ = level.UnmarshalText([]byte(s.Level)) // checked with the settings; otherwise info
	config := zap.NewProductionEncoderConfig()
	config.TimeKey = "time"
	config.EncodeTime = func(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
		enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
	config.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(config)
	if s.Format == "console" || s.Format == "" && IsTerminal(w) {
		config.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder, w = zapcore.NewConsoleEncoder(config), printableWriter{w}
	}
	out := zapcore.Lock(zapcore.AddSync(w))
	at := func(warnings bool) zapcore.Core {
		return zapcore.NewCore(encoder.Clone(), out, zap.LevelEnablerFunc(func(l zapcore.Level) bool {
			return (l == zapcore.WarnLevel) == warnings && level.Enabled(l)
		}))
	}
	return zap.New(zapcore.NewTee(at(false), broker.NewSampler(at(true), time.Second, 10, 100))), level
}

// printableWriter escapes, in a log for people, characters that would make it look different from what was logged.
type printableWriter struct{ w io.Writer }

// Write is called by zap, with one entry.
func (r printableWriter) Write(line []byte) (int, error) {
	lines := strings.Split(string(line), "\n")
	for i, text := range lines {
		cells := strings.Split(text, "\t")
		for j, cell := range cells {
			cells[j] = admin.Printable(cell)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	if _, err := io.WriteString(r.w, strings.Join(lines, "\n")); err != nil {
		return 0, err
	}
	return len(line), nil
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
