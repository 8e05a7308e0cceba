package submit

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	meterInterval = 5 * time.Second // between two lines, where there is no terminal
	meterSilence  = time.Minute     // a line even though nothing has changed
)

// Meter shows how far a bulk has come: a bar on a terminal, otherwise a line now and then. It uses no colours, so that there
// are none for NO_COLOR to turn off. The caller of NewMeter must call End. A nil one shows nothing.
type Meter struct {
	out   io.Writer
	what  string // "published"
	total int
	began time.Time

	bars *mpb.Progress // nil: no terminal
	bar  *mpb.Bar
	text atomic.Pointer[string] // beside the bar

	printed time.Time
	last    string
}

// NewMeter starts a meter.
func NewMeter(out io.Writer, terminal bool, what string, total int) *Meter {
	m := &Meter{out: out, what: what, total: total, began: time.Now(), printed: time.Now()}
	m.text.Store(new(string))
	if !terminal {
		return m
	}
	m.bars = mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh())
	m.bar = m.bars.New(int64(total), mpb.BarStyle(),
		mpb.PrependDecorators(decor.Name(what+" "), decor.CountersNoUnit("%d of %d ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *m.text.Load() })))
	return m
}

// Show shows how many are done, followed by notes.
func (m *Meter) Show(done int, notes ...string) {
	if m == nil {
		return
	}
	var parts []string
	if done > 0 {
		parts = append(parts, Rate(done, time.Since(m.began)))
	}
	for _, note := range notes {
		if note != "" {
			parts = append(parts, note)
		}
	}
	text := strings.Join(parts, "; ")
	if m.bars != nil {
		m.text.Store(&text)
		m.bar.SetCurrent(int64(done))
		return
	}
	// The rate, which changes as time passes, is no news.
	news := fmt.Sprint(done, notes)
	if since := time.Since(m.printed); since < meterInterval || news == m.last && since < meterSilence {
		return
	}
	m.printed, m.last = time.Now(), news
	fmt.Fprintf(m.out, "%s %d of %d; %s\n", m.what, done, m.total, text)
}

// End leaves the bar as it is.
func (m *Meter) End() {
	if m != nil && m.bars != nil {
		m.bar.Abort(false)
		m.bars.Wait()
	}
}

// Rate returns n in a time, per second or per minute.
func Rate(n int, in time.Duration) string {
	each := float64(n) / max(in, time.Millisecond).Seconds()
	if each < 1 {
		return fmt.Sprintf("%.0f/min", each*60)
	}
	return fmt.Sprintf("%.0f/s", each)
}
