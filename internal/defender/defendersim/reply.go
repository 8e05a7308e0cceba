package defendersim

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// reply is an answer not yet written, so that a fault can replace or cut it.
type reply struct {
	status int
	header http.Header
	body   []byte
	hang   func() // blocks as long as a stalled answer does
}

func (rep *reply) set(name, value string) {
	if rep.header == nil {
		rep.header = http.Header{}
	}
	rep.header.Set(name, value)
}

// retryAfter sets the header in whole seconds ([doc] common-errors.md); 0: none.
func (rep *reply) retryAfter(d time.Duration) {
	if d > 0 {
		rep.set("Retry-After", strconv.Itoa(seconds(d)))
	}
}

// deflate compresses the body, in zlib's form.
func (rep *reply) deflate() {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = z.Write(rep.body)
	_ = z.Close()
	rep.body = b.Bytes()
	rep.set("Content-Encoding", "deflate")
}

// failure is an error in Defender's envelope ([doc] common-errors.md).
func failure(status int, code, message string) reply {
	return failureFor(newGUID(rand.Uint64), status, code, message)
}

func failureFor(target string, status int, code, message string) reply {
	type inner struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Target  string `json:"target"`
	}
	return jsonReply(status, struct {
		Error inner `json:"error"`
	}{inner{code, message, target}})
}

func jsonReply(status int, v any) reply {
	body, _ := json.Marshal(v) // only ever plain values
	return reply{status: status, body: body}
}

func newGUID(random func() uint64) string {
	a, b := random(), random()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x",
		a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// write sends the reply whole, or cut as Fault.Cut says.
func write(w http.ResponseWriter, rep reply, cut string) {
	if cut == "before" {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	maps.Copy(h, rep.header)
	switch {
	case h.Get("Content-Type") != "" || len(rep.body) == 0:
	case rep.status < 300:
		h.Set("Content-Type", "application/json; odata.metadata=minimal; odata.streaming=true; charset=utf-8") // [live]
	default:
		h.Set("Content-Type", "application/json; charset=utf-8") // [live]
	}
	switch cut {
	case "headers":
		cutHeaders(w, rep)
	case "body", "stall":
		h.Set("Content-Length", strconv.Itoa(len(rep.body)+1))
		w.WriteHeader(rep.status)
		_, _ = w.Write(rep.body[:len(rep.body)/2])
		_ = http.NewResponseController(w).Flush()
		if cut == "stall" {
			rep.hang()
		}
		panic(http.ErrAbortHandler)
	default:
		if rep.status != http.StatusNoContent && rep.status != http.StatusNotModified {
			h.Set("Content-Length", strconv.Itoa(len(rep.body)))
		}
		w.WriteHeader(rep.status)
		_, _ = w.Write(rep.body) // the client may be gone
	}
}

// cutHeaders sends the status line and closes the connection. HTTP/2 has no
// such line: there all headers go out and the stream is reset.
func cutHeaders(w http.ResponseWriter, rep reply) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.Header().Set("Content-Length", strconv.Itoa(len(rep.body)+1))
		w.WriteHeader(rep.status)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = fmt.Fprintf(buf, "HTTP/1.1 %d %s\r\n", rep.status, http.StatusText(rep.status))
	_ = buf.Flush()
	_ = conn.Close()
}

// isJSON is enough to choose a content type for a fault's body.
func isJSON(body []byte) bool { return strings.HasPrefix(strings.TrimSpace(string(body)), "{") }
