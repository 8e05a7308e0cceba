package service

import (
	"bytes"
	"strconv"
	"strings"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// glance tells at a glance which messages can't have a name as their id, machine or ticket: to read every message of a long queue
// in full takes seconds.
type glance struct {
	name string
	text []byte // what a message has that has the name, in lower case
}

// glanceFor looks for the name in any case, as a machine's id is. Of a CloudEvent's SOURCE#ID the message has the parts.
func glanceFor(name string) glance {
	return glance{name, bytes.ToLower([]byte(name[strings.LastIndexByte(name, '#')+1:]))}
}

// mayName is false for a message that does not have the name. What could hide it from a glance is read in full.
func (g glance) mayName(m broker.Message) bool {
	if len(g.text) == 0 || g.in(m.Data) || strings.HasSuffix(g.name, ":"+strconv.FormatUint(m.Sequence, 10)) || hides(m.Data) {
		return true
	}
	for header, values := range m.Header {
		for _, v := range values {
			if strings.EqualFold(header, message.HeaderReplay) || strings.IndexByte(v, '%') >= 0 || g.in([]byte(v)) {
				return true
			}
		}
	}
	return false
}

// mayBeIn is mayName for who sees the payload alone: one without an id of its own may have one in its headers.
func (g glance) mayBeIn(payload []byte) bool {
	return len(g.text) == 0 || g.in(payload) || hides(payload) || !hasID(payload)
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

func (g glance) in(data []byte) bool { return bytes.Contains(bytes.ToLower(data), g.text) }

// hides reports whether a payload may say something in other characters than it has: in JSON's escapes, or encoded.
func hides(data []byte) bool {
	return bytes.IndexByte(data, '\\') >= 0 || bytes.Contains(data, []byte("data_base64"))
}
