package defender

import (
	"bytes"
	"html"
	"iter"
	"regexp"
	"strconv"
	"strings"
)

// view is a text in another spelling, that knows where each of its bytes comes from.
type view struct {
	text []byte
	at   []span // in the original; nil: it is the original
}

// place is where the bytes from i to j come from.
func (v view) place(i, j int) span {
	if v.at == nil {
		return span{i, j}
	}
	return span{v.at[i].from, v.at[j-1].to}
}

// derived begins a view of v.
func (v view) derived() view {
	return view{text: make([]byte, 0, len(v.text)), at: make([]span, 0, len(v.text))}
}

func (v *view) add(b byte, place span) { v.text, v.at = append(v.text, b), append(v.at, place) }

// alphabet is a way of writing bytes in digits.
type alphabet struct {
	bits   int       // of one digit
	values [256]int8 // of each character; -1: it is no digit
}

// alphabets are those of base64 in both forms, of base32 in both forms, and of hexadecimal.
var alphabets = [...]alphabet{
	{6, digits("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")},
	{5, digits("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "abcdefghijklmnopqrstuvwxyz234567")},
	{5, digits("0123456789ABCDEFGHIJKLMNOPQRSTUV", "0123456789abcdefghijklmnopqrstuv")},
	{4, digits("0123456789ABCDEF", "0123456789abcdef")},
}

// period is after how many digits their bytes begin anew.
func (a *alphabet) period() int {
	n := 1
	for n*a.bits%8 != 0 {
		n++
	}
	return n
}

func digits(alphabets ...string) (values [256]int8) {
	for i := range values {
		values[i] = -1
	}
	for _, alphabet := range alphabets {
		for i := range len(alphabet) {
			values[alphabet[i]] = int8(i)
		}
	}
	return values
}

// respelled are what v may be a spelling of. Whatever stands between digits, a line's end for example, is passed over.
func (v view) respelled(s *secret) iter.Seq[view] {
	return func(yield func(view) bool) {
		if bytes.ContainsAny(v.text, `%=\&`) && !yield(v.unescaped()) {
			return
		}
		if bytes.ContainsFunc(v.text, func(r rune) bool { return r > 255 || !s.has[r] }) && !yield(v.only(s)) {
			return
		}
		for i := range alphabets {
			a := &alphabets[i]
			if len(v.text)*a.bits/8 < s.piece {
				continue
			}
			for skip := range a.period() {
				if readable, _ := v.undigited(a, skip, s, false); !readable {
					continue
				}
				if _, out := v.undigited(a, skip, s, true); !yield(out) {
					return
				}
			}
		}
	}
}

// only is v without the bytes that the secret has not: what it was folded with.
func (v view) only(s *secret) view {
	out := v.derived()
	for i, c := range v.text {
		if s.has[c] {
			out.add(c, v.place(i, i+1))
		}
	}
	return out
}

// undigited is what v's digits, but for the first few, are an encoding of. readable: so many bytes of it as a piece has stand
// in a row that are printable or that the secret has; what was not spelled that way comes out as noise.
func (v view) undigited(a *alphabet, skip int, s *secret, keep bool) (readable bool, out view) {
	if keep {
		out = v.derived()
	}
	acc, have, from, row := 0, -skip*a.bits, 0, 0
	for i, c := range v.text {
		d := a.values[c]
		if d < 0 {
			continue
		}
		if have == 0 {
			from = i
		}
		if have += a.bits; have <= 0 {
			continue // of those that are skipped
		}
		if acc = acc<<a.bits | int(d); have < 8 {
			continue
		}
		have -= 8
		b := byte(acc >> have)
		if keep {
			out.add(b, v.place(from, i+1))
		}
		from = i // the rest of this digit begins the next byte
		if row++; (b < ' ' || b > '~') && !s.has[b] {
			row = 0
		}
		readable = readable || row >= s.piece
	}
	return readable, out
}

// escapes are one character as URLs, mails, HTML, and programming languages write those they can't write plainly.
var escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}|=[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[0-7]{3}|\\["'\\/bfnrt]|&#?[0-9A-Za-z]{1,8};`)

// unescaped is v with these characters plain.
func (v view) unescaped() view {
	out := v.derived()
	done := 0
	for _, m := range escapes.FindAllIndex(v.text, -1) {
		for ; done < m[0]; done++ {
			out.add(v.text[done], v.place(done, done+1))
		}
		for _, c := range []byte(plain(string(v.text[m[0]:m[1]]))) {
			out.add(c, v.place(m[0], m[1]))
		}
		done = m[1]
	}
	for ; done < len(v.text); done++ {
		out.add(v.text[done], v.place(done, done+1))
	}
	return out
}

func plain(escape string) string {
	base, number := 16, ""
	switch c := escape[0]; {
	case c == '&':
		return html.UnescapeString(escape)
	case c != '\\':
		number = escape[1:]
	case escape[1] == 'x' || escape[1] == 'u' && len(escape) == 6:
		number = escape[2:]
	case len(escape) == 4:
		base, number = 8, escape[1:]
	default:
		return strings.NewReplacer("n", "\n", "r", "\r", "t", "\t", "b", "\b", "f", "\f").Replace(escape[1:])
	}
	n, _ := strconv.ParseUint(number, base, 32) // it is one, by the pattern
	if n < 256 {
		return string([]byte{byte(n)})
	}
	return string(rune(n))
}
