package defender

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

const redacted = "[redacted]"

// A piece of a secret this long is noticed, wherever it stands; of a shorter secret, the whole.
const (
	minPiece  = 16
	minSecret = 8 // what is shorter would only riddle harmless text
)

// secret is one that we send, ready to be looked for in what comes back: servers and proxies do repeat what they were sent.
// nil is none.
type secret struct {
	value []byte
	piece int
	has   [256]bool        // the bytes it is made of
	at    map[uint32][]int // where each four bytes in a row stand in value
}

func newSecret(value string) *secret {
	if len(value) < minSecret {
		return nil
	}
	s := &secret{value: []byte(value), piece: min(len(value), minPiece), at: map[uint32][]int{}}
	for _, c := range s.value {
		s.has[c] = true
	}
	for i := range len(value) - 3 {
		four := binary.LittleEndian.Uint32(s.value[i:])
		s.at[four] = append(s.at[four], i)
	}
	return s
}

// span is a range of bytes.
type span struct{ from, to int }

// pieces are where text and the secret have enough bytes in a row in common. Eight bytes in a row hold four that begin at
// a multiple of five, so that only those are looked up.
func (s *secret) pieces(text []byte) (found []span) {
	for i, end := 0, 0; i+4 <= len(text); i += 5 {
		for _, at := range s.at[binary.LittleEndian.Uint32(text[i:])] {
			from, to := i, i+4
			for back := at; from > end && back > 0 && text[from-1] == s.value[back-1]; from-- {
				back--
			}
			for on := at + 4; to < len(text) && on < len(s.value) && text[to] == s.value[on]; to++ {
				on++
			}
			if to-from >= s.piece {
				found = append(found, span{from, to})
				end = to
			}
		}
	}
	return found
}

// spelled are how often a spelling within a spelling is undone.
const spelled = 2

// search is where the original of v repeats the secret, as it is or in another spelling.
func (s *secret) search(v view, depth int) []span {
	found := s.pieces(v.text)
	for i, f := range found {
		found[i] = v.place(f.from, f.to)
	}
	if depth == 0 {
		return found
	}
	for next := range v.respelled(s) {
		found = append(found, s.search(next, depth-1)...)
	}
	return found
}

// without is text without the pieces of the secret. escaped: it is the inside of a string of JSON that has escapes, none of
// which is broken.
func (s *secret) without(text []byte, escaped bool) []byte {
	var found []span
	for from := 0; from < len(text); {
		end, next := window(text[from:], escaped)
		v := view{text: text[from : from+end]}
		if escaped {
			v = v.unescaped()
		}
		for _, f := range s.search(v, spelled) {
			found = append(found, span{from + f.from, from + f.to})
		}
		from += next
	}
	if len(found) == 0 {
		return text
	}
	slices.SortFunc(found, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []byte
	done := 0
	for i, f := range found {
		if i == 0 || f.from > done {
			out = append(append(out, text[done:f.from]...), redacted...)
		}
		done = max(done, f.to)
	}
	return append(out, text[done:]...)
}

// A long text is searched in windows, each of which begins in the one before, so that its views take little memory.
const windowSize, windowOverlap = 16 << 10, 2 << 10

// window is where the first window of text ends, and the next one begins: not within an escape.
func window(text []byte, escaped bool) (end, next int) {
	if len(text) <= windowSize {
		return len(text), len(text)
	}
	if !escaped {
		return windowSize, windowSize - windowOverlap
	}
	for end < windowSize {
		if end < windowSize-windowOverlap {
			next = end
		}
		switch {
		case text[end] != '\\':
			end++
		case text[end+1] == 'u':
			end += 6
		default:
			end += 2
		}
	}
	return min(end, len(text)), next
}

// cut takes the pieces of the secret out of a text.
func (s *secret) cut(text string) string {
	if s == nil {
		return text
	}
	return string(s.without([]byte(text), false))
}

// cutJSON takes them out of the strings of a JSON document, whose other bytes stay as they are. Whether it is one need not
// be known yet.
func (s *secret) cutJSON(body []byte) []byte {
	if s == nil {
		return body
	}
	var out []byte
	done := 0
	for i := 0; i < len(body); {
		at := bytes.IndexByte(body[i:], '"')
		if at < 0 {
			break
		}
		from := i + at + 1
		end, escaped := stringEnd(body, from)
		i = end + 1
		if end-from < s.piece {
			continue
		}
		inside := body[from:end]
		if clean := s.without(inside, escaped); !bytes.Equal(clean, inside) {
			out = append(append(out, body[done:from]...), clean...)
			done = end
		}
	}
	if done == 0 {
		return body
	}
	return append(out, body[done:]...)
}

// stringEnd is where the quote stands that ends the string whose inside begins at from, and whether there is an escape in it.
func stringEnd(body []byte, from int) (end int, escaped bool) {
	for i := from; i < len(body); i++ {
		switch body[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			return i, escaped
		}
	}
	return len(body), escaped
}
