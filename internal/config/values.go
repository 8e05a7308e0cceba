package config

import (
	"errors"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"example.com/unrestrict-worker/internal/broker"
)

// Secret is a value that no log, error or page may show: every way of printing it gives a placeholder.
type Secret struct {
	value string
	file  string // from which it was read; "": none
}

// Reveal returns the value, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

// File is the file from which it was read, whose content may have changed since; "": none.
func (s Secret) File() string { return s.file }

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

// String is for fmt and zap.
func (s Secret) String() string {
	if s.IsSet() {
		return "(secret)"
	}
	return ""
}

// GoString is for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is for encoding/json.
func (s Secret) MarshalText() ([]byte, error) {
	return []byte(s.String()), nil
}

var days = regexp.MustCompile(`^(\d{1,5})d`)

// ParseDuration is time.ParseDuration with days of 24 hours in front.
func ParseDuration(text string) (time.Duration, error) {
	m := days.FindStringSubmatch(text)
	if m == nil {
		return time.ParseDuration(text)
	}
	n, err := strconv.Atoi(m[1])
	d := time.Duration(n) * 24 * time.Hour
	if rest := text[len(m[0]):]; err == nil && rest != "" {
		var more time.Duration
		more, err = time.ParseDuration(rest)
		d += more
	}
	return d, err
}

// isSubject reports whether one can publish on a subject: no wildcards, no empty tokens, not one of NATS's own.
func isSubject(text string) bool {
	if strings.ContainsFunc(text, unprintable) || strings.ContainsAny(text, "*>") || strings.HasPrefix(text, "$") || strings.HasPrefix(text, "_") {
		return false
	}
	for token := range strings.SplitSeq(text, ".") {
		if token == "" {
			return false
		}
	}
	return true
}

// isName reports whether a stream or consumer can have a name.
func isName(text string) bool {
	return text != "" && len(text) <= 255 && !strings.ContainsFunc(text, unprintable) && !strings.ContainsAny(text, `.*>/\`)
}

// isTaken reports whether a stream's name is reserved: one of the worker's own, or a bucket's.
func isTaken(text string) bool {
	return text == broker.AuditStream || strings.HasPrefix(text, "UNRESTRICT_") || strings.HasPrefix(text, "KV_") || strings.HasPrefix(text, "OBJ_")
}

func unprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// isAddress reports whether a text is host:port; the host may be empty, the port 0.
func isAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// hostOf returns the host of an address.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// IsLoopback reports whether a host is this machine alone. Of all names only localhost is: what others resolve to can
// change.
func IsLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// parseServers reads NATS_URL as nats.go does: a scheme may be left out.
func parseServers(text string) (any, error) {
	var all []string
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		// With an @ behind the host, the password has a / or ? in it, and its beginning was taken for the host.
		if err != nil || u.Hostname() == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return nil, errors.New("give servers such as nats://HOST:4222, comma-separated; the scheme may be nats, tls, ws or wss")
		}
		all = append(all, one)
	}
	return all, must(text == "" || len(all) > 0, "there is no server in it; give one, or leave the setting out for the embedded broker")
}

// parseAPIURL checks DEFENDER_API_URL: bearer tokens go there, so plain HTTP is
// for this machine alone.
func parseAPIURL(text string) (any, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("give https://HOST or https://HOST:PORT")
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return nil, errors.New("tokens would cross the network in clear; give https, or a host on loopback")
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("give scheme, host and port alone, without a path, a query or a user")
	}
	return u.Scheme + "://" + strings.TrimSuffix(u.Host, ":"), nil
}

// parseBaseURL checks an address that begins the links sent to clients.
func parseBaseURL(text string) (any, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("give the beginning of the addresses that clients use, such as https://intake.contoso.com")
	}
	return strings.TrimRight(text, "/"), nil
}
