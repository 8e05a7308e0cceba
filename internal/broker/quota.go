package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/budget"
)

// quota fills in how many calls each window has left for all replicas together, and when the next one is free if there is none.
// Calls that are reserved for look-ups do not count as free. The limits are those of the streams, which the running workers set.
func (b *Broker) quota(ctx context.Context, o *Overview, windows []budget.Window) error {
	for _, w := range windows {
		status := budget.WindowStatus{Window: w.Name, Limit: w.Limit, Remaining: w.Limit}
		stream, err := b.window(ctx, w)
		if err != nil {
			return err
		}
		if stream != nil {
			info := stream.CachedInfo()
			status.Limit = int(info.Config.MaxMsgsPerSubject)
			status.Remaining = max(0, status.Limit-int(info.State.Msgs))
			if info.State.Msgs > 0 {
				status.FreesAt, status.FullAt = info.State.FirstTime.Add(w.Span()), info.State.LastTime.Add(w.Span())
			}
			next, unknown, err := b.nextFree(ctx, w, stream, o.Reserve[w.Name])
			if err != nil {
				return err
			}
			if unknown {
				status.Remaining, status.FreesAt, status.FullAt = 0, next, next
			}
			if next.After(o.NextCall) {
				o.NextCall, o.Short = next, w.Name
			}
		}
		o.Budget = append(o.Budget, status)
	}
	return nil
}

// nextFree is when a window has a free call; zero: now. unknown: until then it is not known how many calls count in the window.
func (b *Broker) nextFree(ctx context.Context, w budget.Window, window jetstream.Stream, reserve int) (next time.Time, unknown bool, err error) {
	info := window.CachedInfo()
	mark, err := b.state.Load(ctx, rates.MarkKey(w.Name))
	if err != nil {
		return time.Time{}, false, err
	}
	if end := mark.Written.Add(rates.MarkTTL(w)); mark.Value != nil && end.After(info.TimeStamp) {
		return end, true, nil
	}
	over := int(info.State.Msgs) - (int(info.Config.MaxMsgsPerSubject) - reserve)
	if over < 0 {
		return time.Time{}, false, nil
	}
	// over+1 grants must age out. A grant that is not found has just aged out.
	msg, err := window.GetMsg(ctx, info.State.FirstSeq+uint64(over))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("read %s: %w", rates.StreamName(w.Name), err)
	}
	return msg.Time.Add(w.Span()), false, nil
}

// Limits are the windows with the smallest limit that a running replica is configured with; 0 if none has a limit.
func (o Overview) Limits() []budget.Window {
	windows := budget.Limits(0, 0)
	for i := range windows {
		for _, r := range o.Replicas {
			if l := r.Limits[windows[i].Name]; l > 0 && (windows[i].Limit == 0 || l < windows[i].Limit) {
				windows[i].Limit = l
			}
		}
	}
	return windows
}

// UrgentReserve is the percentage of each window that normal leaves to urgent: the largest that a replica reports, or fallback
// if none reports one.
func (o Overview) UrgentReserve(fallback int) int {
	percent, reported := 0, false
	for _, r := range o.Replicas {
		if r.UrgentReserve != nil {
			percent, reported = max(percent, *r.UrgentReserve), true
		}
	}
	if !reported {
		return fallback
	}
	return percent
}

// mostGrants is how many grants are read at once: enough for an hour at the API's own limit.
const mostGrants = 2048

// Usage returns the windows with the time of each call that counts in them, for [budget.Forecast]. A window for which that is
// not known counts as full until it is.
func (b *Broker) Usage(ctx context.Context, windows []budget.Window) ([]budget.Used, error) {
	var all []budget.Used
	for _, w := range windows {
		used := budget.Used{Window: w}
		stream, err := b.window(ctx, w)
		if err != nil {
			return nil, err
		}
		if stream == nil {
			all = append(all, used)
			continue
		}
		used.Limit = min(w.Limit, int(stream.CachedInfo().Config.MaxMsgsPerSubject)) // smaller while it may not be raised
		next, unknown, err := b.nextFree(ctx, w, stream, 0)
		if err != nil {
			return nil, err
		}
		if unknown {
			used.Grants = slices.Repeat([]time.Time{next.Add(-w.Span())}, used.Limit)
			all = append(all, used)
			continue
		}
		for m, err := range b.scanOpened(ctx, stream, part{subject: rates.Subject(w.Name), most: mostGrants}) {
			if err != nil {
				return nil, err
			}
			used.Grants = append(used.Grants, m.Time)
		}
		all = append(all, used)
	}
	return all, nil
}

// VisitRates is the call budget for a command, which is not a replica. Without a state bucket no worker has run, and there is no
// limit.
func (b *Broker) VisitRates(ctx context.Context, windows []budget.Window) (*rates.Visitor, error) {
	v, err := rates.Visit(ctx, b.js, b.state, windows)
	if IsMissing(err) {
		return &rates.Visitor{}, nil
	}
	return v, err
}

// window is the stream of a window; nil if the window has no limit, or no worker has run yet.
func (b *Broker) window(ctx context.Context, w budget.Window) (jetstream.Stream, error) {
	if w.Limit == 0 {
		return nil, nil //nolint:nilnil // said above
	}
	stream, err := b.js.Stream(ctx, rates.StreamName(w.Name))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil //nolint:nilnil // said above
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", rates.StreamName(w.Name), err)
	}
	return stream, nil
}

// missingWindows lists the streams of the call budget that do not exist. Provision does not create them: rates.Store does,
// because it knows how to account for the grants of a stream that was removed.
func (b *Broker) missingWindows(ctx context.Context) (missing []string, err error) {
	for _, w := range b.cfg.Windows {
		if w.Limit == 0 {
			continue
		}
		cfg := rates.StreamConfig(w, b.cfg.Replicas)
		_, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, cfg.Name) })
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			missing = append(missing, missingStream(cfg))
		case err != nil:
			return nil, fmt.Errorf("look up stream %s: %w", cfg.Name, err)
		}
	}
	return missing, nil
}
