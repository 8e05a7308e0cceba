package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// Setting is one declared setting, and what it was given.
type Setting struct {
	Env, Flag, Key string // variable, flag without --, key in a --config file
	Group, Help    string
	Default        string
	HasDefault     bool
	OneOf          []string // the allowed values; nil: no such list
	Toggle         bool     // true or false: the flag alone means true
	Secret         bool     // has no flag, and its value is never shown

	unset  string
	tag    reflect.StructTag
	target reflect.Value // the field that it fills
	pair   *Setting      // the same setting in its other form, by value or by file
	file   bool          // the value is in the file that it names

	text, source string // source: "in the environment" and the like; empty: the default
}

// declare lists the settings of a struct in the order of their declaration, each with the field that it fills.
func declare(of reflect.Value, group string) []*Setting {
	var all []*Setting
	for field, value := range of.Fields() {
		in := group
		if own := field.Tag.Get("group"); own != "" {
			in = own
		}
		if _, ok := field.Tag.Lookup("env"); !ok {
			all = append(all, declare(value, in)...)
			continue
		}
		s := newSetting(field.Tag, value, in)
		all = append(all, s)
		if help := field.Tag.Get("file"); help != "" {
			f := newSetting(reflect.StructTag(fmt.Sprintf("env:%q help:%q", s.Env+"_FILE", help)), value, in)
			f.Secret, f.file, f.pair, s.pair = false, true, s, f
			all = append(all, f)
		}
	}
	return all
}

func newSetting(tag reflect.StructTag, value reflect.Value, group string) *Setting {
	s := &Setting{Env: tag.Get("env"), Group: group, Help: tag.Get("help"), unset: tag.Get("unset"), tag: tag, target: value}
	s.Default, s.HasDefault = tag.Lookup("default")
	s.Key = strings.ToLower(strings.TrimPrefix(s.Env, "WORKER_"))
	s.Flag = strings.ReplaceAll(s.Key, "_", "-")
	if list := tag.Get("oneof"); list != "" {
		s.OneOf = strings.Split(list, ",")
	}
	_, s.Secret = reflect.TypeAssert[Secret](value)
	s.Toggle = value.Kind() == reflect.Bool
	return s
}

// context is the key of the setting in a context of the nats command, "" if there is none.
func (s *Setting) context() string { return s.tag.Get("context") }

// Fallback describes what the setting is when it is not given.
func (s *Setting) Fallback() string {
	switch {
	case s.HasDefault:
		return s.Default
	case s.unset != "":
		return s.unset
	}
	return "none"
}

// FlagForm is the setting's flag as the help shows it.
func (s *Setting) FlagForm() string {
	switch {
	case s.Secret:
		return "(no flag)"
	case s.Toggle:
		return "--" + s.Flag + "[=false]"
	}
	return "--" + s.Flag + "=VALUE"
}

// give records a value and where it came from.
func (s *Setting) give(text, source string) { s.text, s.source = text, source }

// name is how a mistake names the setting.
func (s *Setting) name() string {
	if s.Secret {
		return s.Env
	}
	return fmt.Sprintf("%s (--%s)", s.Env, s.Flag)
}

// hidden matches what no message may show of a value: a password in a URL, and an nkey's seed given in place of its
// public key.
var hidden = regexp.MustCompile(`.*(@)|\bS[A-Z][A-Z2-7]{56}\b`)

// describe returns the value and where it was given; never a secret.
func (s *Setting) describe() string {
	if s.text == "" {
		return "is empty"
	}
	source := s.source
	if source == "" {
		source = "by default"
	}
	if s.Secret {
		return "is set " + source
	}
	value := hidden.ReplaceAllString(s.text, "(secret)$1")
	if len(value) > 100 {
		value = value[:100] + "..."
	}
	return fmt.Sprintf("is %q %s", value, source)
}
