package remediation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// member is one name and value of a JSON object, the value as it stands in the message.
type member struct {
	name  string
	value []byte
}

// readObject splits one JSON object into its members and refuses what encoding/json lets pass: a key that comes twice
// in one object at any depth, invalid UTF-8, half a surrogate pair. Nesting deeper than maxDepth
// is refused too. With an error come the members before the fault, so that a rejected message can still be named.
func readObject(data []byte) ([]member, error) {
	list, err := splitObject(data)
	switch {
	case !json.Valid(data):
		return list, syntaxFault(data)
	case err != nil:
		return list, err
	}
	return list, textFault(data)
}

// textFault looks for what encoding/json would put U+FFFD for.
func textFault(data []byte) error {
	switch {
	case !utf8.Valid(data):
		return errors.New("is not UTF-8; encode it as UTF-8")
	case hasHalfSurrogate(data):
		return errors.New(`has half a surrogate pair (\uD800 to \uDFFF); write both halves or the character itself`)
	}
	return nil
}

func syntaxFault(data []byte) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(data, new(json.RawMessage))); ok {
		return fmt.Errorf("is no JSON object: %s (byte %d); send one object in braces", syntax.Error(), syntax.Offset)
	}
	return errors.New("is no JSON object; send one object in braces")
}

// maxDepth is encoding/json's own limit. It bounds what one message takes up while it is read, however broken it is.
const maxDepth = 10_000

// nesting is one open object or array; keys is nil in an array.
type nesting struct {
	keys map[string]struct{}
	name bool // in an object: a key comes next
}

// splitObject tells keys from values by quotes, brackets and commas alone, whatever else is wrong with the text:
// encoding/json is the judge of that. Its own faults are right where the text is JSON.
func splitObject(data []byte) (list []member, err error) {
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return nil, errors.New("is not a JSON object; send one object in braces")
	}
	var open []nesting
	var key string // of the outermost object, while its value goes on
	from := -1     // the end of that key
	for i := 0; i < len(data); i++ {
		if len(open) > maxDepth {
			return list, fmt.Errorf("is nested more than %d deep; flatten it", maxDepth)
		}
		switch data[i] {
		case '{':
			open = append(open, nesting{keys: map[string]struct{}{}, name: true})
		case '[':
			open = append(open, nesting{})
		case '"':
			end := stringEnd(data, i)
			if end < 0 || len(open) == 0 {
				return list, nil
			}
			if in := &open[len(open)-1]; in.name {
				name, err := in.add(data[i:end])
				if err != nil {
					return list, err
				}
				if len(open) == 1 {
					key, from = name, end
				}
			}
			i = end - 1
		case ',', '}', ']':
			if len(open) == 1 && from >= 0 {
				list = append(list, member{key, bytes.Trim(data[from:i], " \t\r\n:")})
				from = -1
			}
			if data[i] == ',' {
				in := &open[len(open)-1]
				in.name = in.keys != nil
			} else if open = open[:len(open)-1]; len(open) == 0 {
				return list, nil
			}
		}
	}
	return list, nil
}

// add takes the next key of an object.
func (n *nesting) add(quoted []byte) (string, error) {
	key, err := unquote(quoted)
	if err != nil {
		return "", err
	}
	if _, twice := n.keys[key]; twice {
		return "", fmt.Errorf("has the key %s twice in one object; give it once", strconv.QuoteToASCII(shorten(key, 64)))
	}
	n.keys[key], n.name = struct{}{}, false
	return key, nil
}

func unquote(quoted []byte) (s string, err error) {
	if err := textFault(quoted); err != nil {
		return "", err
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	if err := json.Unmarshal(quoted, &s); err != nil {
		return "", fmt.Errorf("is no string: %w", err)
	}
	return s, nil
}

// stringEnd is where the string that begins at i ends, behind its closing quote; -1 if it doesn't.
func stringEnd(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// hasHalfSurrogate looks at the escapes of valid JSON, where a backslash is nowhere but in a string.
func hasHalfSurrogate(data []byte) bool {
	for {
		i := bytes.IndexByte(data, '\\')
		if i < 0 {
			return false
		}
		data = data[i:]
		r, ok := escapedRune(data)
		if !ok {
			data = data[2:]
			continue
		}
		data = data[6:]
		if !utf16.IsSurrogate(r) {
			continue
		}
		low, ok := escapedRune(data)
		if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		data = data[6:]
	}
}

func escapedRune(data []byte) (rune, bool) {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	r := rune(0)
	for _, c := range data[2:6] {
		r = r<<4 | rune(unhex(c))
	}
	return r, true
}

// jsonKind names a value's type for an error message.
func jsonKind(value []byte) string {
	if len(value) == 0 {
		return "missing" // of text that is no JSON
	}
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}
