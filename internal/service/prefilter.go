package service

import (
	"bytes"
	"strconv"
	"strings"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// prefilter rules out, without parsing, messages that can't have a name as their id, machine or ticket: parsing every message of a
// long queue takes seconds.
type prefilter struct {
	name string
	text []byte // what a message with the name contains, in lower case
}

// newPrefilter ignores case, as machine ids do. Of a CloudEvent's SOURCE#ID it looks for ID alone: the message has the two apart.
func newPrefilter(name string) prefilter {
	return prefilter{name, bytes.ToLower([]byte(name[strings.LastIndexByte(name, '#')+1:]))}
}

// mayMatch returns false for a message that can't have the name. One in which the name may be encoded matches, and is parsed.
func (p prefilter) mayMatch(m broker.Message) bool {
	if len(p.text) == 0 || p.contains(m.Data) || strings.HasSuffix(p.name, ":"+strconv.FormatUint(m.Sequence, 10)) || hides(m.Data) {
		return true
	}
	for header, values := range m.Header {
		for _, v := range values {
			if strings.EqualFold(header, message.HeaderReplay) || strings.IndexByte(v, '%') >= 0 || p.contains([]byte(v)) {
				return true
			}
		}
	}
	return false
}

// mayMatchPayload is mayMatch for a caller that has the payload alone. A payload without an id matches: a header may have it.
func (p prefilter) mayMatchPayload(payload []byte) bool {
	return len(p.text) == 0 || p.contains(payload) || hides(payload) || !hasID(payload)
}

// hasID reports whether a JSON object without escapes has a member of its own that is called id.
func hasID(payload []byte) bool {
	depth := 0
	for i := 0; i < len(payload); i++ {
		switch payload[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := bytes.IndexByte(payload[i+1:], '"')
			if end < 0 {
				return false
			}
			name, rest := payload[i+1:i+1+end], bytes.TrimLeft(payload[i+2+end:], " \t\r\n")
			if depth == 1 && bytes.EqualFold(name, []byte("id")) && bytes.HasPrefix(rest, []byte(":")) {
				return true
			}
			i += 1 + end
		}
	}
	return false
}

func (p prefilter) contains(data []byte) bool { return bytes.Contains(bytes.ToLower(data), p.text) }

// hides reports whether a payload may contain the name in another form: in JSON's escapes, or in base64.
func hides(data []byte) bool {
	return bytes.IndexByte(data, '\\') >= 0 || bytes.Contains(data, []byte("data_base64"))
}
