package intake

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// prefers is how long the client wants to wait for the end: the hint wait of RFC 7240.
func prefers(r *http.Request) time.Duration {
	for _, line := range r.Header.Values("Prefer") {
		for hint := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(hint), "=")
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && strings.EqualFold(strings.TrimSpace(name), "wait") && n > 0 {
				return min(time.Duration(min(n, 60))*time.Second, maxPrefer)
			}
		}
	}
	return 0
}

// await waits for a request's end. It returns early when the intake is stopping.
func (s *Server) await(ctx context.Context, wait time.Duration, r message.Request) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	key := ledger.EntryKey(s.rules.Stream, r, time.Time{})
	tick := time.NewTicker(waitStep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.draining:
			return
		case <-ctx.Done():
			return
		}
		conn := s.link.get()
		if conn == nil {
			continue
		}
		if k, err := entry(ctx, conn, key); err == nil && k.ended() {
			return
		}
	}
}

// reread is the present status of a request, or was if that can't be read now.
func (s *Server) reread(ctx context.Context, r message.Request, was status) status {
	conn := s.link.get()
	if conn == nil {
		return was
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	k, err := s.find(ctx, conn, r)
	if err != nil || k.empty() {
		return was
	}
	st, err := s.statusOf(ctx, conn, r.ID, k)
	if err != nil {
		return was
	}
	st.Duplicate = was.Duplicate
	return st
}
