package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// parse converts what the setting was given to the setting's type; the error is advice. so has the settings that are
// declared before this one.
func (s *Setting) parse(so *Settings) (any, error) {
	if s.file {
		return s.parseFile()
	}
	switch s.target.Interface().(type) {
	case bool:
		on, err := strconv.ParseBool(strings.ToLower(s.text))
		if err != nil {
			return nil, errors.New("give true or false")
		}
		return on, nil
	case int:
		return s.parseInt()
	case float64:
		return s.parseNumber()
	case time.Duration:
		return s.parseDuration()
	case []string:
		return parseServers(s.text)
	case Secret:
		return Secret{value: s.text}, nil
	case *message.Signers:
		signers, err := message.ParseSigners(s.text)
		return signers, advise(err, "give public nkeys (such as U... of `nk -gen user -pubout`), each once, bare or as NAME=KEY, comma-separated")
	case *policy.Policy:
		if s.text == "" {
			return (*policy.Policy)(nil), nil
		}
		return policy.Load(s.text, so.Accept.Signers)
	}
	return s.parseText()
}

// parseFile converts the content of the file.
func (s *Setting) parseFile() (any, error) {
	if _, ok := reflect.TypeAssert[*message.Signers](s.target); ok {
		signers, err := message.SignersFile(s.text)
		return signers, advise(err, "give a file with a public nkey (such as U... of `nk -gen user -pubout`) and a name a line")
	}
	data, err := ReadSmall(s.text)
	if err != nil {
		return nil, advise(err, "give the path of a file that this program may read")
	}
	value := strings.TrimRight(string(data), "\r\n")
	if value == "" {
		return nil, errors.New("that file is empty; write the secret into it")
	}
	return Secret{value: value, file: s.text}, nil
}

func (s *Setting) parseInt() (any, error) {
	low, _ := strconv.Atoi(s.tag.Get("min"))
	high, _ := strconv.Atoi(s.tag.Get("max"))
	n, err := strconv.Atoi(s.text)
	if err != nil || n < low || n > high {
		return nil, fmt.Errorf("give a whole number from %d to %d", low, high)
	}
	return n, nil
}

func (s *Setting) parseNumber() (any, error) {
	low, _ := strconv.ParseFloat(s.tag.Get("min"), 64)
	high, _ := strconv.ParseFloat(s.tag.Get("max"), 64)
	n, err := strconv.ParseFloat(s.text, 64)
	if err != nil || math.IsNaN(n) || n < low || n > high {
		return nil, fmt.Errorf("give a number from %v to %v", low, high)
	}
	return n, nil
}

func (s *Setting) parseDuration() (any, error) {
	d, err := time.ParseDuration(s.text)
	if err != nil {
		advice := "give a duration, a number with its unit such as 500ms, 30s, 5m or 24h"
		if _, err := strconv.Atoi(s.text); err == nil {
			advice += "; " + s.text + " seconds are " + s.text + "s"
		} else if d, err := ParseDuration(s.text); err == nil {
			advice += "; " + s.text + " is " + strings.TrimSuffix(d.String(), "0m0s")
		}
		return nil, errors.New(advice)
	}
	if least, _ := time.ParseDuration(s.tag.Get("min")); d < least {
		return nil, fmt.Errorf("give a duration of at least %v", least)
	}
	return d, nil
}

// parseText checks a text against the kind that its tag names.
func (s *Setting) parseText() (any, error) {
	if s.OneOf != nil {
		value := strings.ToLower(s.text)
		if slices.Contains(s.OneOf, value) || value == "" && !s.HasDefault {
			return value, nil
		}
		return nil, errors.New("give one of " + strings.Join(s.OneOf, ", ") + DidYouMean(value, s.OneOf))
	}
	such := ", such as " + s.Fallback()
	switch is := s.tag.Get("is"); is {
	case "":
		return s.text, nil
	case "not-blank":
		return s.text, must(strings.TrimSpace(s.text) != "", "give a value"+such)
	case "file":
		if s.text == "" {
			return "", nil
		}
		_, err := ReadSmall(s.text)
		return s.text, advise(err, "give the path of a file that this program may read")
	case "address":
		return s.text, must(isAddress(s.text), "give an address and a port"+such)
	case "api-url":
		return parseAPIURL(s.text)
	case "base-url":
		return parseBaseURL(s.text)
	case "subject":
		return s.text, errors.Join(
			must(s.text != broker.AuditSubject, "the audit trail has that subject; give another"+such),
			must(isSubject(s.text), "give a subject without spaces or wildcards that does not start with $ or _"+such))
	case "prefix":
		// Subjects of NATS's own, which begin with _, are allowed here.
		return s.text, must(s.text == "" || isSubject(strings.TrimLeft(s.text, "_")), "give the beginning of a subject, without spaces, wildcards or a dot at its end, such as _INBOX_worker")
	case "domain":
		return s.text, must(s.text == "" || isName(s.text), "give the name of a JetStream domain, without a dot")
	case "tenant":
		return s.text, must(s.text == "" || message.CheckName(s.text) == nil, "give a name of 1 to 64 letters, digits and . _ @ -")
	case "name":
		return s.text, must(isName(s.text), `give a name without spaces and . * > / \`+such)
	case "stream":
		return s.text, errors.Join(
			must(!isTaken(s.text), "UNRESTRICT_..., KV_..., OBJ_... and REMEDIATION_AUDIT are taken; give a name"+such),
			must(isName(s.text), `give a name without spaces and . * > / \`+such))
	default:
		panic("no text is " + is)
	}
}

// must makes an error of the advice unless the condition holds.
func must(holds bool, advice string) error {
	if holds {
		return nil
	}
	return errors.New(advice)
}

// advise adds what to do to an error, if there is one.
func advise(err error, advice string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; %s", err, advice)
}

// maxFile bounds a file that a setting names, in bytes.
const maxFile = 1 << 20

// ReadSmall reads a file; its errors leave out the path, which the mistake names.
func ReadSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil, errors.New("it is a folder")
	}
	if err == nil && info.Size() > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	data, err := os.ReadFile(path)
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return nil, pathErr.Err
	}
	return data, err
}
