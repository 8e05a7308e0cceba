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

// prefers is how long the client would wait for the end: the hint wait of RFC 7240.
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

// await waits for a request's end; false: it has not come, or the intake is ending.
func (s *Server) await(ctx context.Context, wait time.Duration, r message.Request) (status, bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	key := ledger.EntryKey(s.rules.Stream, r, time.Time{})
	for tick := time.NewTicker(waitStep); ; {
		select {
		case <-tick.C:
		case <-s.draining:
			tick.Stop()
			return status{}, false
		case <-ctx.Done():
			tick.Stop()
			return status{}, false
		}
		conn := s.link.get()
		if conn == nil {
			continue
		}
		k, err := entry(ctx, conn, key)
		if err != nil || !k.ended() {
			continue
		}
		if st, err := s.tell(ctx, conn, r.ID, k); err == nil {
			tick.Stop()
			return st, true
		}
	}
}
