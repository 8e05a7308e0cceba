package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// setting is one declared setting and where its value came from.
type setting struct {
	flag   *kong.Flag
	env    string  // its variable
	value  *string // the field of settingFlags
	source string  // "in the environment" and the like; empty: the default
}

// yamlKey is its key in a --config file.
func (s *setting) yamlKey() string { return strings.ReplaceAll(s.flag.Name, "-", "_") }
func (s *setting) group() string   { return s.flag.Group.Key }
func (s *setting) secret() bool    { return s.flag.Tag.Type == "secret" }

// oneOf is the values the setting can have; nil where there is no such list.
func (s *setting) oneOf() []string {
	if list := s.flag.Tag.Get("oneof"); list != "" {
		return strings.Split(list, ",")
	}
	return nil
}

// fallback says in words what the setting is when it isn't given.
func (s *setting) fallback() string {
	if s.flag.HasDefault {
		return s.flag.Default
	}
	if words := s.flag.Tag.Get("unset"); words != "" {
		return words
	}
	return "none"
}

// names is how a mistake names the setting.
func (s *setting) names() string {
	if s.secret() {
		return s.env
	}
	return fmt.Sprintf("%s (--%s)", s.env, s.flag.Name)
}

// hidden is what no message may show of a value: a password in a URL, and an
// nkey's seed put where its public key belongs.
var hidden = regexp.MustCompile(`.*(@)|\bS[A-Z][A-Z2-7]{56}\b`)

// describe says what the setting is and where that was said; never a secret.
func (s *setting) describe() string {
	if *s.value == "" {
		return "is empty"
	}
	source := s.source
	if source == "" {
		source = "by default"
	}
	if s.secret() {
		return "is set " + source
	}
	value := hidden.ReplaceAllString(*s.value, "(secret)$1")
	if len(value) > 100 {
		value = value[:100] + "..."
	}
	return fmt.Sprintf("is %q %s", value, source)
}

// settingsOf lists the declared settings in the order of their declaration.
func settingsOf(app *kong.Application) []*setting {
	var all []*setting
	for _, flag := range app.Flags {
		if len(flag.Envs) > 0 {
			all = append(all, &setting{flag: flag, env: flag.Envs[0], value: flag.Target.Addr().Interface().(*string)})
		}
	}
	return all
}

// resolve gives each setting its value: from the command line (already there),
// else from the environment, else from the file, else the default (already
// there). An empty variable or key counts as not given.
func resolve(settings []*setting, given map[*kong.Flag]bool, lookup func(string) (string, bool), file map[string]fileValue, path string) {
	for _, s := range settings {
		if given[s.flag] {
			s.source = "on the command line"
		} else if value, ok := lookup(s.env); ok && value != "" {
			*s.value, s.source = value, "in the environment"
		} else if v := file[s.yamlKey()]; v.text != "" {
			*s.value, s.source = v.text, fmt.Sprintf("in %s, line %d", path, v.line)
		}
	}
}

// Mistake is one thing wrong with the configuration.
type Mistake struct {
	Name  string // the variable; empty for the --config file itself
	Group string // of settingGroups; empty for the --config file itself
	Text  string // names the setting, its value unless secret, and what to do
}

// badConfiguration ends a command with all the mistakes in the settings it uses.
func badConfiguration(mistakes []Mistake) error {
	text := "bad configuration:"
	if n := len(mistakes); n > 1 {
		text = fmt.Sprintf("bad configuration, %d mistakes:", n)
	}
	for _, m := range mistakes {
		text += "\n  " + m.Text
	}
	return badInput("%s", text)
}

// loadSettings merges and checks everything, and returns the mistakes in the
// given groups and in the --config file. A setting with a mistake has no value.
func loadSettings(app *kong.Application, declared *cli, given map[*kong.Flag]bool, groups []string, lookup func(string) (string, bool)) (Settings, []Mistake) {
	settings := settingsOf(app)
	var path string
	var file map[string]fileValue
	var mistakes []Mistake
	if declared.Config != nil {
		path = *declared.Config
		var known []string
		for _, s := range settings {
			known = append(known, s.yamlKey())
		}
		file, mistakes = readConfigFile(path, known)
	}
	resolve(settings, given, lookup, file, path)
	result, found := check(settings, &declared.Settings)
	return result, append(mistakes, of(groups, found)...)
}

// of are the mistakes in some groups of settings.
func of(groups []string, mistakes []Mistake) []Mistake {
	return slices.DeleteFunc(mistakes, func(m Mistake) bool { return !slices.Contains(groups, m.Group) })
}
