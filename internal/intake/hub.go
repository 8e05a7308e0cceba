package intake

import (
	"context"
	"sync"

	"example.com/unrestrict-worker/internal/broker"
)

// hub reads the results once for all readers, as long as there are any, and keeps the last ones for readers that are a
// little behind.
type hub struct {
	mu      sync.Mutex
	readers int
	now     *tail // nil: there is no reader
}

// tail is the end of the results stream, as one run of the hub reads it.
type tail struct {
	stop context.CancelFunc

	mu    sync.Mutex
	kept  []broker.Message
	next  uint64        // the sequence after the last one read; older ones that are not kept are in the stream
	bytes int           // of kept
	news  chan struct{} // closed when there are more results, or at the end
	err   error         // why it ended; nil: it is running
}

// Limits of what is kept for readers.
const (
	keptResults = 1024
	keptBytes   = 4 << 20
)

// follow starts following the results published from now on; leave ends that.
func (h *hub) follow(ctx context.Context, conn *broker.Broker) (t *tail, leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil || h.now.ended() != nil {
		stream := conn.Names().ResultsStream
		last, err := conn.LastSequence(ctx, stream)
		if err != nil {
			return nil, nil, err
		}
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		h.now = &tail{next: last + 1, stop: stop, news: make(chan struct{})}
		go h.now.run(running, conn, stream)
		h.readers = 0
	}
	h.readers++
	t = h.now
	return t, sync.OnceFunc(func() { h.leave(t) }), nil
}

func (h *hub) leave(t *tail) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t != h.now {
		return // it has ended, and another one is followed now
	}
	if h.readers--; h.readers == 0 {
		t.stop()
		h.now = nil
	}
}

func (t *tail) run(ctx context.Context, conn *broker.Broker, stream string) {
	err := conn.Follow(ctx, stream, broker.FollowOptions{From: t.next}, func(m broker.Message) error {
		t.add(m)
		return nil
	})
	if err == nil {
		err = context.Canceled
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	close(t.news)
}

func (t *tail) add(m broker.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept, t.bytes, t.next = append(t.kept, m), t.bytes+len(m.Data), m.Sequence+1
	for len(t.kept) > keptResults || t.bytes > keptBytes && len(t.kept) > 1 {
		t.bytes -= len(t.kept[0].Data)
		t.kept[0] = broker.Message{} // its content can be freed, before the slice is reallocated
		t.kept = t.kept[1:]
	}
	close(t.news)
	t.news = make(chan struct{})
}

// reached is the sequence after the last one read.
func (t *tail) reached() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

func (t *tail) ended() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// from returns the results from a sequence on. behind: results older than the kept ones have to be read from the stream
// first. If there is no result yet, news is closed when there is.
func (t *tail) from(sequence uint64) (list []broker.Message, behind bool, news <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sequence >= t.next {
		return nil, false, t.news, t.err
	}
	if len(t.kept) == 0 || sequence < t.kept[0].Sequence {
		return nil, true, nil, nil
	}
	for i, m := range t.kept {
		if m.Sequence >= sequence {
			return append(list, t.kept[i:]...), false, nil, nil
		}
	}
	return nil, false, t.news, t.err
}
