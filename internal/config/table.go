package config

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
)

// Table is the declared settings and what is given for them. It is good for one Load.
type Table struct {
	Settings []*Setting // in the order of their declaration

	// Unknown lists, after Load, the variables that look like settings and are none.
	Unknown []string

	values   Settings
	mistakes []Mistake
}

// NewTable returns the declared settings, none of them given.
func NewTable() *Table {
	t := &Table{}
	t.Settings = declare(reflect.ValueOf(&t.values).Elem(), "")
	return t
}

// Sources has the sources of settings, each of which may be absent.
type Sources struct {
	Flags   map[string]string // by flag, without --
	Environ []string          // as of os.Environ
	File    *string           // path of a YAML file
}

// Mistake is one thing wrong with the configuration.
type Mistake struct {
	Name  string // the variable; empty for the --config file itself
	Group string // of Groups; empty for the --config file itself
	Text  string // names the setting, its value unless secret, and what to do
}

// Load merges and checks everything, and returns every mistake, those of the file first. A setting has the value from
// the command line, else from the environment, else from the file, else from the context of the nats command that these
// name, else its default. An empty variable or key counts as not given.
func (t *Table) Load(given Sources) (Settings, []Mistake) {
	var file map[string]fileValue
	if given.File != nil {
		var known []string
		for _, s := range t.Settings {
			known = append(known, s.Key)
		}
		file, t.mistakes = readConfigFile(*given.File, known)
	}
	lookup := Lookup(given.Environ)
	for _, s := range t.Settings {
		s.give(s.Default, "")
		if text, ok := given.Flags[s.Flag]; ok {
			s.give(text, "on the command line")
		} else if text, ok := lookup(s.Env); ok && text != "" {
			s.give(text, "in the environment")
		} else if v := file[s.Key]; v.text != "" {
			s.give(v.text, fmt.Sprintf("in %s, line %d", *given.File, v.line))
		}
	}
	t.natsContext(lookup)
	for _, s := range t.Settings {
		t.fill(s)
	}
	t.together()
	slips, unknown := misspelt(given.Environ, t.Settings)
	t.mistakes, t.Unknown = append(t.mistakes, slips...), unknown
	return t.values, t.mistakes
}

// Lookup is os.LookupEnv for a given environment; if a name occurs twice, the first one counts.
func Lookup(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, variable := range environ {
			given, value, _ := strings.Cut(variable, "=")
			if given == name || runtime.GOOS == "windows" && strings.EqualFold(given, name) {
				return value, true
			}
		}
		return "", false
	}
}

// fill parses what a setting was given into its field.
func (t *Table) fill(s *Setting) {
	if s.file && s.text == "" {
		return // the value itself may be given
	}
	if s.pair != nil && !s.file && s.text != "" && s.pair.text != "" {
		t.mistake(s, "and so is "+s.pair.Env+"; give one of the two")
		s.pair.text = ""
		return
	}
	value, err := s.parse(&t.values)
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() { // each names the file, and its line
			t.mistakes = append(t.mistakes, Mistake{Name: s.Env, Group: s.Group, Text: s.name() + ": " + one.Error()})
		}
		return
	}
	if err != nil {
		t.mistake(s, err.Error())
		return
	}
	s.target.Set(reflect.ValueOf(value))
}

// mistake records that a setting is wrong, with advice.
func (t *Table) mistake(s *Setting, advice string) {
	t.mistakes = append(t.mistakes, Mistake{Name: s.Env, Group: s.Group, Text: s.name() + " " + s.describe() + ": " + advice})
}

// of finds a setting by its variable, which is declared.
func (t *Table) of(env string) *Setting {
	for _, s := range t.Settings {
		if s.Env == env {
			return s
		}
	}
	panic(env + " is not declared")
}

// SettingsFrom is the defaults with some variables set. It ignores this process's environment.
func SettingsFrom(variables map[string]string) (Settings, error) {
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	settings, mistakes := NewTable().Load(Sources{Environ: environ})
	if len(mistakes) > 0 {
		return Settings{}, BadConfiguration(mistakes)
	}
	return settings, nil
}
