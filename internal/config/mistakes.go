package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// InputError is a mistake in what the user typed or configured.
type InputError struct{ error }

// Unwrap returns the mistake itself.
func (e *InputError) Unwrap() error { return e.error }

// BadInput makes an error that ends the program with exit status 2.
func BadInput(format string, args ...any) error {
	return &InputError{fmt.Errorf(format, args...)}
}

// BadConfiguration makes the error that ends a command, with all mistakes in the settings it uses.
func BadConfiguration(mistakes []Mistake) error {
	text := "bad configuration:"
	if n := len(mistakes); n > 1 {
		text = fmt.Sprintf("bad configuration, %d mistakes:", n)
	}
	for _, m := range mistakes {
		text += "\n  " + m.Text
	}
	return BadInput("%s", text)
}

// misspelt finds environment variables that are one of ours with a typo. These are mistakes, because a typo silently
// turns off what the variable should have turned on. Other names that begin as ours do are unknown. Each has a hint.
func misspelt(environ []string, settings []*Setting) (mistakes []Mistake, unknown []string) {
	given := map[string]bool{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		given[name] = value != ""
	}
	isOurs := func(name string) bool {
		return slices.ContainsFunc(settings, func(s *Setting) bool { return s.Env == name })
	}
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		if value == "" || isOurs(name) || injected(name, value) {
			continue
		}
		switch near := slipsOf(name, settings, given); {
		case near != nil:
			mistakes = append(mistakes, Mistake{
				Name: name, Group: near[0].Group,
				Text: fmt.Sprintf("%s is set in the environment: there is no such variable; did you mean %s? Rename it, or unset it", name, variablesOf(near)),
			})
		case strings.HasPrefix(name, "WORKER_"), strings.HasPrefix(name, "DEFENDER_"):
			unknown = append(unknown, fmt.Sprintf("%s is set in the environment, and there is no such variable%s", name, DidYouMean(name, allVariables(settings))))
		}
	}
	return mistakes, unknown
}

// slipsOf are the settings whose variable differs from the name by one letter more, less or other, or by two swapped.
func slipsOf(name string, settings []*Setting, given map[string]bool) (near []*Setting) {
	for _, s := range settings {
		prefix, _, _ := strings.Cut(s.Env, "_")
		switch {
		case editDistance(name, s.Env) != 1:
		case prefix == "LOG" && !strings.HasPrefix(name, "LOG_"):
			// LOGLEVEL, GLOG_LEVEL: other programs' own.
		case name == "NATS_URI" && given[s.Env]:
			// Other programs use it for what is NATS_URL here.
		default:
			near = append(near, s)
		}
	}
	return near
}

func variablesOf(settings []*Setting) string { return strings.Join(allVariables(settings), " or ") }

func allVariables(settings []*Setting) (names []string) {
	for _, s := range settings {
		names = append(names, s.Env)
	}
	return names
}

// serviceVariable matches the variables that Kubernetes sets for each Service of the namespace, here one named nats,
// worker or the like. [doc] Kubernetes: "Accessing Services", environment variables.
var serviceVariable = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?$`)

func injected(name, value string) bool {
	return serviceVariable.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}
