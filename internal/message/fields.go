package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// fieldNames are the members of a request object as the documents spell them.
var fieldNames = [...]string{"machineId", "comment", "id", "requestedBy", "ticket", "batch", "metadata", "expiresAt", "replyTo"}

// fieldName is the field that a key spells, in any case; "" for any other key. Letters outside ASCII that fold to ASCII ones
// (U+212A to k) take more bytes, so they match nothing.
func fieldName(key string) string {
	for _, name := range fieldNames {
		if len(name) == len(key) && strings.EqualFold(name, key) {
			return name
		}
	}
	return ""
}

func required(name string) bool { return name == "machineId" || name == "comment" }

// readFields reads a request object. With the faults of all fields it returns the fields that have none. It does not check
// the id, which the caller does.
func (r Rules) readFields(object []member) (req Request, err error) {
	var seen []string
	var faults []error
	for _, m := range object {
		name := fieldName(m.name)
		if name == "" {
			continue
		}
		if slices.Contains(seen, name) {
			faults = append(faults, fmt.Errorf("%s: is given in two spellings; give it once", name))
			continue
		}
		seen = append(seen, name)
		if string(m.value) == "null" && !required(name) {
			continue
		}
		if err := r.readField(&req, name, m.value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, name := range fieldNames {
		if required(name) && !slices.Contains(seen, name) {
			faults = append(faults, fmt.Errorf("%s: is required; add it", name))
		}
	}
	return req, joined(faults...)
}

// text returns a member's value, which must be a string.
func text(value []byte) (string, error) {
	if value[0] != '"' {
		return "", fmt.Errorf("is %s; give a string", jsonKind(value))
	}
	return unquote(value)
}

func (r Rules) readField(req *Request, name string, value []byte) (err error) {
	if name == "metadata" {
		req.Metadata, err = metadata(value)
		return err
	}
	s, err := text(value)
	if err != nil {
		return err
	}
	return r.setText(req, name, s)
}

// CheckField checks the text of one field of a request, regardless of the others.
func CheckField(name, text string) error { return Rules{}.setText(&Request{}, name, text) }

func (r Rules) setText(req *Request, name, s string) (err error) {
	switch name {
	case "machineId":
		req.MachineID, err = MachineID(s)
	case "comment":
		req.Comment, err = comment(s)
	case "id":
		if req.ID = s; s == "" {
			err = checkID(s)
		}
	case "requestedBy":
		req.RequestedBy = s
	case "ticket":
		req.Ticket = s
	case "batch":
		req.Batch = s
	case "expiresAt":
		req.ExpiresAt, err = parseInstant(s)
	case "replyTo":
		req.ReplyTo, err = r.replyTo(s)
	}
	return err
}

// MachineID checks a machine id, and returns it in lower case.
func MachineID(s string) (string, error) {
	if len(s) != 40 || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return "", errors.New("is not 40 hexadecimal digits; take the id, not the name, of the device in Defender")
	}
	return strings.ToLower(s), nil
}

func comment(s string) (string, error) {
	switch n := utf8.RuneCountInString(s); {
	case strings.TrimSpace(s) == "":
		return "", errors.New("is blank; say why the restriction is removed")
	case n > maxComment:
		return "", fmt.Errorf("has %d characters, more than %d; shorten it", n, maxComment)
	}
	return s, nil
}

func metadata(value []byte) (json.RawMessage, error) {
	switch {
	case value[0] != '{':
		return nil, fmt.Errorf("is %s; give an object", jsonKind(value))
	case len(value) > maxMetadata:
		return nil, fmt.Errorf("has %d bytes, more than %d; shorten it", len(value), maxMetadata)
	}
	return bytes.Clone(value), nil // so that the rest of the message can be freed
}

// parseInstant reads RFC 3339, which allows t and z for T and Z. The first instant of year 1 would become Go's zero time,
// which stands for no time; it gets a nanosecond more, which is just as long past.
func parseInstant(s string) (t time.Time, err error) {
	t, err = time.Parse(time.RFC3339, strings.ToUpper(s))
	if err != nil || s[13] != ':' || strings.Contains(s, ",") { // time.Parse accepts an hour of one digit, and a comma
		return time.Time{}, errors.New("is no RFC 3339 time; write it like 2026-11-24T18:00:00Z")
	}
	if t.IsZero() {
		t = t.Add(1)
	}
	return t, nil
}

func (r Rules) replyTo(s string) (string, error) {
	if err := CheckSubject(s); err != nil {
		return "", err
	}
	if strings.HasPrefix(s, "$") || strings.HasPrefix(s, "_R_") {
		return "", errors.New("begins with $ or _R_, which the broker keeps for itself; choose another subject")
	}
	for _, own := range r.OwnSubjects {
		if matches(own, s) {
			return "", errors.New("is a subject of the worker itself; choose another")
		}
	}
	return s, nil
}

// CheckSubject returns an error if no message can be published on s.
func CheckSubject(s string) error {
	switch {
	case s == "":
		return errors.New("is empty; give a subject such as team.answers")
	case len(s) > maxSubject:
		return fmt.Errorf("has more than %d bytes; shorten it", maxSubject)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return errors.New("has white space, control characters or bytes that are not UTF-8; leave them out")
	}
	for token := range strings.SplitSeq(s, ".") {
		switch token {
		case "":
			return errors.New("has an empty part between, before or after dots; take out the dot too many")
		case "*", ">":
			return errors.New("has a wildcard; name one subject")
		}
	}
	return nil
}

// matches reports whether the pattern, which may have wildcards, covers the subject, which has none.
func matches(pattern, subject string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range want {
		if token == ">" {
			return i < len(have)
		}
		if i == len(have) || token != "*" && token != have[i] {
			return false
		}
	}
	return len(want) == len(have)
}

// joined joins all faults on one line; nil if there are none.
func joined(faults ...error) error {
	var texts []string
	for _, f := range faults {
		if f != nil {
			texts = append(texts, f.Error())
		}
	}
	if texts == nil {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}
