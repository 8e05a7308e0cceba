package defendersim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting is one switch of a Server: `worker simulate --set NAME=VALUE`, and /sim/settings while it runs.
type Setting struct {
	Name, Help string
	value      any // a pointer into the Config
}

// settings are all of them. A new switch is a field of Config and a row here.
func (c *Config) settings() []Setting {
	return []Setting{
		{"duplicate", "the answer to a call for a machine whose action of that type is open: 400, 201 or 200 with that action, or alternate", &c.Duplicate},
		{"cancel", "what becomes of an open action that is cancelled, whatever the answer says: it ends, is ignored and goes its way, or is late and completes though its status is Cancelled", &c.Cancel},
		{"oneAtATime", "an open action of another type refuses a call too, with 400", &c.OneAtATime},
		{"outcome", "how actions end: Succeeded, Failed, TimeOut, Cancelled or any other word", &c.Outcome},
		{"pending", "how long an action stays Pending", &c.Lifecycle.Pending},
		{"inProgress", "how long it is InProgress after that", &c.Lifecycle.InProgress},
		{"listLag", "how long a new action is missing from list and get", &c.ListLag},
		{"latency", "how long each answer of the API takes", &c.Latency},
		{"limits", "the quota, as CALLS/TIME, separated by commas; none: no limit", &c.Limits},
		{"cpuQuota", "from now on, for so long, each call is refused with 429 as for its CPU", &c.CPUQuota},
		{"unknownMachines", "every id of 40 hexadecimal digits is a machine", &c.AllowUnknownMachines},
		{"unknownFields", "actions bear a field that no page names", &c.UnknownFields},
		{"pageSize", "how many entities a list without $top gives at once", &c.PageSize},
		{"malformedNextLink", "the link to the third page of a list has lost the names of its options", &c.MalformedNextLink},
		{"deflate", "successes are compressed for every client, not only for those that accept deflate", &c.Deflate},
		{"clockOffset", "the API's clock minus this machine's", &c.ClockOffset},
		{"roles", "the roles that the first registration's tokens bear, separated by commas; none: no role", &c.Roles},
		{"tokenLifetime", "how long new tokens are good for", &c.TokenLifetime},
		{"revokeTokensAfter", "a token is refused so long after its issue, whatever it says; 0s: never", &c.RevokeTokensAfter},
		{"lenientSignIn", "the token endpoint takes a form that comes by GET", &c.LenientSignIn},
	}
}

// Settings returns the switches as they stand.
func (s *Server) Settings() []Setting {
	c := *s.conf()
	return c.settings()
}

// Set changes switches, all of them or none. What is under way stays as it is.
func (s *Server) Set(values map[string]string) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	c := *s.conf()
	all := c.settings()
	for name, text := range values {
		at := slices.IndexFunc(all, func(one Setting) bool { return strings.EqualFold(one.Name, name) })
		if at < 0 {
			return fmt.Errorf("there is no setting %q; GET /sim/settings names them", name)
		}
		if err := all[at].parse(strings.TrimSpace(text)); err != nil {
			return fmt.Errorf("%s: %q is no value: %w", all[at].Name, text, err)
		}
		if all[at].value == &c.CPUQuota {
			s.gate.closedUntil = time.Since(s.start) + c.CPUQuota
		}
	}
	s.gate.window.limits = c.Limits
	s.cfg.Store(&c)
	return nil
}

// list splits values at commas; the word none means an empty list.
func list(text string) []string {
	if text == "" || text == "none" {
		return []string{}
	}
	return strings.Split(text, ",")
}

func (one Setting) parse(text string) (err error) {
	switch v := one.value.(type) {
	case *bool:
		*v, err = strconv.ParseBool(text)
	case *string:
		*v = text
	case *int:
		if *v, err = strconv.Atoi(text); err == nil && *v < 1 {
			err = errors.New("it must be 1 or more")
		}
	case *time.Duration:
		if *v, err = time.ParseDuration(text); err == nil && *v < 0 && one.Name != "clockOffset" {
			err = errors.New("it must not be negative")
		}
	case *[]string:
		*v = list(text)
	case *DuplicateMode:
		var at int
		at, err = oneOf(duplicateModes, text)
		*v = DuplicateMode(at)
	case *CancelMode:
		var at int
		at, err = oneOf(cancelModes, text)
		*v = CancelMode(at)
	case *[]Limit:
		*v = []Limit{}
		for _, item := range list(text) {
			var l Limit
			calls, per, _ := strings.Cut(item, "/")
			if l.Calls, err = strconv.Atoi(calls); err == nil {
				l.Per, err = time.ParseDuration(per)
			}
			if err != nil || l.Calls < 1 || l.Per <= 0 {
				return errors.New("a limit is CALLS/TIME, such as 100/1m")
			}
			*v = append(*v, l)
		}
	}
	return err
}

// The words of modes, in the order of their values.
var (
	duplicateModes = []string{"400", "201", "200", "alternate"}
	cancelModes    = []string{"ends", "ignored", "late"}
)

func oneOf(words []string, text string) (at int, err error) {
	if at = slices.Index(words, text); at < 0 {
		return 0, fmt.Errorf("it must be one of %s", strings.Join(words, ", "))
	}
	return at, nil
}

// Value is the current value of a setting, in the form in which it is set.
func (one Setting) Value() string {
	words := func(v []string) string { return or(strings.Join(v, ","), "none") }
	switch v := one.value.(type) {
	case *bool:
		return strconv.FormatBool(*v)
	case *string:
		return *v
	case *int:
		return strconv.Itoa(*v)
	case *time.Duration:
		return v.String()
	case *[]string:
		return words(*v)
	case *DuplicateMode:
		return duplicateModes[*v]
	case *CancelMode:
		return cancelModes[*v]
	case *[]Limit:
		var out []string
		for _, l := range *v {
			out = append(out, fmt.Sprintf("%d/%s", l.Calls, l.Per))
		}
		return words(out)
	}
	return ""
}
