package trail

import (
	"bytes"
	"encoding/json"
	"strings"
)

// repeatedMember is a name that stands twice in one object of a JSON text, in whatever case; "" if there is none. Programs
// differ in which of the two they read, and encoding/json reads any case.
func repeatedMember(data []byte) string {
	type object struct {
		names map[string]bool // nil: an array
		value bool            // the next token is a value
	}
	var open []object
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		token, err := dec.Token()
		if err != nil {
			return "" // the end; that it is JSON was seen before
		}
		if n := len(open) - 1; n >= 0 && open[n].names != nil {
			name, isText := token.(string)
			if !open[n].value && isText {
				if name = strings.ToLower(name); open[n].names[name] {
					return name
				}
				open[n].names[name] = true
			}
			open[n].value = !open[n].value
		}
		switch token {
		case json.Delim('{'):
			open = append(open, object{names: map[string]bool{}})
		case json.Delim('['):
			open = append(open, object{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
}
