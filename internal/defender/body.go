package defender

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of what is read of an answer, in bytes after decompression. A page may have 10,000 actions ([doc]
// get-machineactions-collection.md) with comments of 4,000 characters.
const (
	maxAction = 4 << 20
	maxList   = 64 << 20
	maxError  = 64 << 10
)

// slots bounds the memory that all answers take together: at most maxError for each call, and a single answer beyond
// that. An answer of usual size needs no slot.
type slots chan struct{}

var errTooLarge = errors.New("the answer is too large")

// body reads an answer, within its limit and the exchange's time-out.
type body struct {
	ctx   context.Context
	resp  *http.Response
	text  io.Reader // decoded
	slots slots
	limit int
	read  int
	held  bool // it has the slot
}

// body starts reading an answer. A 1xx (only 101 gets here) has no end, and counts as empty.
func (s slots) body(ctx context.Context, resp *http.Response, op string) *body {
	b := &body{ctx: ctx, resp: resp, text: decoded(resp), slots: s, limit: maxError}
	switch {
	case resp.StatusCode < 200:
		b.text = http.NoBody
	case resp.StatusCode < 300 && op == opList:
		b.limit = maxList
	case resp.StatusCode < 300:
		b.limit = maxAction
	}
	return b
}

// Read reads the answer, and fails with errTooLarge past the limit. Past maxError it first waits for the slot.
func (b *body) Read(p []byte) (int, error) {
	size := b.limit
	if !b.held {
		size = maxError
		if b.read > maxError {
			select {
			case b.slots <- struct{}{}:
				b.held, size = true, b.limit
			case <-b.ctx.Done():
				return 0, context.Cause(b.ctx)
			}
		}
	}
	n, err := b.text.Read(p[:min(len(p), size+1-b.read)]) // one byte past the limit shows that there is more
	if b.read += n; b.read > b.limit {
		err = errTooLarge
	} else if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errTimeout) {
		err = errTimeout
	}
	return n, err
}

// close releases the slot. It does not read the rest of the body.
func (b *body) close() {
	_ = b.resp.Body.Close()
	if b.held {
		<-b.slots
	}
}

// piecemeal feeds a decoder while an answer is being received: the decoder buffers no more than it needs for one
// entity.
type piecemeal struct {
	io.Reader
	dec  *jsontext.Decoder
	read int64
	err  error // why reading ended early
}

// Read fails with errTooLarge if one entity is larger than an action may be.
func (p *piecemeal) Read(b []byte) (int, error) {
	n, err := 0, errTooLarge
	if p.read-p.dec.InputOffset() <= maxAction {
		n, err = p.Reader.Read(b)
	}
	if p.read += int64(n); err != nil && err != io.EOF {
		p.err = err
	}
	return n, err
}

const byteOrderMark = "\xef\xbb\xbf"

// skipBOM returns text without its byte order mark, if it has one.
func skipBOM(text io.Reader) io.Reader {
	r := bufio.NewReader(text)
	if head, _ := r.Peek(len(byteOrderMark)); string(head) == byteOrderMark {
		_, _ = r.Discard(len(byteOrderMark))
	}
	return r
}

// decoded undoes deflate, the one encoding that Defender uses and net/http does not undo. Some clients get it without
// asking. Most servers mean zlib's format by "deflate", others the raw one.
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
