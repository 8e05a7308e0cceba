package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// member is one name and value of a JSON object; the value is a slice of the message.
type member struct {
	name  string
	value []byte // valid JSON, white space around it left out
}

// readObject splits one JSON object into its members. jsontext refuses what encoding/json accepts: a name that occurs twice
// in one object at any depth, invalid UTF-8, half a surrogate pair. With an error it returns the members before the fault,
// so that a rejected message can still be named.
func readObject(data []byte) (list []member, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	open, err := d.ReadToken()
	switch {
	case err != nil:
		return nil, syntaxFault(data, err)
	case open.Kind() != jsontext.KindBeginObject:
		return nil, errors.New("is not a JSON object; send one object in braces")
	}
	for d.PeekKind() == jsontext.KindString {
		token, err := d.ReadToken()
		if err != nil {
			return list, syntaxFault(data, err)
		}
		name := token.String()
		value, err := d.ReadValue()
		if err != nil {
			return list, syntaxFault(data, err)
		}
		end := d.InputOffset()
		list = append(list, member{name, data[end-int64(len(value)) : end]})
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace
		return list, syntaxFault(data, err)
	}
	switch _, err := d.ReadToken(); {
	case errors.Is(err, io.EOF):
		return list, nil
	case err != nil:
		return list, syntaxFault(data, err)
	}
	return list, errors.New("is more than one JSON value; send one object in braces")
}

// syntaxFault describes the fault in text that jsontext refuses.
func syntaxFault(data []byte, err error) error {
	syntax, located := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !located || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("is no JSON object: unexpected end; send one object in braces")
	case errors.Is(syntax.Err, jsontext.ErrDuplicateName):
		return fmt.Errorf("has the key %s twice in one object; give it once", strconv.QuoteToASCII(Shorten(syntax.JSONPointer.LastToken(), 64)))
	case !json.Valid(data):
		return fmt.Errorf("is no JSON object: %w (byte %d); send one object in braces", syntax.Err, syntax.ByteOffset+1)
	case !utf8.Valid(data):
		return errors.New("is not UTF-8; encode it as UTF-8")
	}
	return errors.New(`has half a surrogate pair (\uD800 to \uDFFF); write both halves or the character itself`)
}

// unquote decodes a JSON string.
func unquote(quoted []byte) (string, error) {
	s, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		return "", fmt.Errorf("is no string: %w", err)
	}
	return string(s), nil
}

// jsonKind names a value's type for an error message.
func jsonKind(value []byte) string {
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
