package defender

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// How much of an answer is read, after decompression. A page may have 10,000 actions ([doc]
// get-machineactions-collection.md) with comments of 4,000 characters.
const (
	maxAction = 4 << 20
	maxList   = 64 << 20
	maxError  = 64 << 10
)

// slots bound the memory of all answers together: whatever is sent, they hold at most maxError for each call, maxAction for
// each of the few that have more, and one page beyond that. They are taken in this order, so that nobody waits in a circle,
// and an answer of usual size waits for none.
type slots struct{ large, huge chan struct{} }

const maxLarge = 8

func newSlots() slots {
	return slots{large: make(chan struct{}, maxLarge), huge: make(chan struct{}, 1)}
}

var errTooLarge = errors.New("the answer is too large")

// read reads to the end, within the limit and the exchange's time. free gives back what the body has taken, once it is no
// longer needed. A 1xx (101 alone gets here) has no end.
func (s slots) read(ctx context.Context, resp *http.Response, op string) (body []byte, free func(), err error) {
	var taken []chan struct{}
	free = func() {
		for _, slot := range taken {
			<-slot
		}
	}
	defer func() { _ = resp.Body.Close() }()
	limit := maxError
	switch {
	case resp.StatusCode < 200:
		return nil, free, nil
	case resp.StatusCode < 300 && op == opList:
		limit = maxList
	case resp.StatusCode < 300:
		limit = maxAction
	}
	content := decoded(resp)
	for _, part := range []struct {
		size int
		slot chan struct{}
	}{{maxError, nil}, {maxAction, s.large}, {maxList, s.huge}} {
		if part.slot != nil {
			select {
			case part.slot <- struct{}{}:
				taken = append(taken, part.slot)
			case <-ctx.Done():
				return nil, free, fmt.Errorf("read the answer: %w", context.Cause(ctx))
			}
		}
		more := io.LimitReader(content, int64(min(part.size, limit)+1-len(body)))
		if body, err = io.ReadAll(io.MultiReader(bytes.NewReader(body), more)); err != nil {
			return nil, free, fmt.Errorf("read the answer: %w", err)
		}
		switch {
		case len(body) > limit:
			return nil, free, errTooLarge
		case len(body) <= part.size:
			return body, free, nil
		}
	}
	return nil, free, errTooLarge
}

// decoded undoes the one encoding that Defender uses and net/http does not undo. It is sent unasked to some clients, and
// "deflate" means zlib's form to most servers and the bare one to others.
func decoded(resp *http.Response) io.Reader {
	if !strings.EqualFold(resp.Header.Get("Content-Encoding"), "deflate") {
		return resp.Body
	}
	r := bufio.NewReader(resp.Body)
	head, err := r.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 { // RFC 1950, 2.2
		if z, err := zlib.NewReader(r); err == nil {
			return z
		}
	}
	return flate.NewReader(r)
}
