package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
)

// natsContext fills the settings that are not given from a context of the nats command. All ways of signing in count as
// one setting, and so does the certificate with its key: the context's, next to another one that is given, would be
// reported as a mistake that nobody made.
//
// The module github.com/synadia-io/orbit.go/natscontext (v0.1.1) does nothing but connect: it exposes no settings
// before that, does not reload rotated files, and runs nsc.
func (t *Table) natsContext(lookup func(string) (string, bool)) {
	of := t.of("NATS_CONTEXT")
	if of.text == "" {
		return
	}
	path, err := contextPath(of.text, lookup)
	if err != nil {
		t.mistake(of, err.Error())
		return
	}
	values, err := readContext(path, t.Settings)
	if err != nil {
		t.mistake(of, err.Error())
		return
	}
	given := func(variables ...string) bool {
		return slices.ContainsFunc(variables, func(v string) bool { return t.of(v).source != "" })
	}
	if given("NATS_CREDS", "NATS_NKEY", "NATS_USER", "NATS_TOKEN", "NATS_TOKEN_FILE") {
		for _, key := range []string{"creds", "nkey", "user", "password", "token"} {
			delete(values, key)
		}
	}
	if given("NATS_CERT", "NATS_KEY") {
		delete(values, "cert")
		delete(values, "key")
	}
	for _, s := range t.Settings {
		text := values[s.context()]
		if text == "" || s.source != "" || s.pair != nil && s.pair.source != "" {
			continue
		}
		if s.tag.Get("is") == "file" {
			text = expand(text, lookup)
		}
		s.give(text, "in the context "+path)
	}
	if t.of("NATS_URL").text == "" {
		t.mistake(of, "it names no server; add its url to "+path+", or set NATS_URL")
	}
}

// contextPath is the file of a context, which is given by its name or by its file.
func contextPath(context string, lookup func(string) (string, bool)) (string, error) {
	if strings.ContainsAny(context, `/\`) || strings.HasSuffix(context, ".json") {
		return expand(context, lookup), nil
	}
	folder, _ := lookup("XDG_CONFIG_HOME")
	if folder == "" {
		folder = filepath.Join(home(lookup), ".config")
	}
	folder = filepath.Join(folder, "nats", "context")
	path := filepath.Join(folder, context+".json")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	var known []string
	there, _ := filepath.Glob(filepath.Join(folder, "*.json"))
	for _, file := range there {
		known = append(known, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	if len(known) == 0 {
		return "", fmt.Errorf("there is no context in %s; give the context's file, or make one with `nats context save`", folder)
	}
	return "", fmt.Errorf("there is no such context in %s; there are %s%s", folder, strings.Join(known, ", "), DidYouMean(context, known))
}

// readContext reads a context's values, by their keys. A key that says how to connect and is not supported here is a
// mistake: a worker that ignored it would connect elsewhere, or as another user.
func readContext(path string, settings []*Setting) (map[string]string, error) {
	data, err := ReadSmall(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; give the name of a context, or the path of a file that this program may read", path, err)
	}
	var keys map[string]any
	if json.Unmarshal(data, &keys) != nil { // its error may show a secret
		return nil, errors.New(path + " is no JSON object; see `nats context validate`")
	}
	values := map[string]string{}
	for _, s := range settings {
		key := s.context()
		if key == "" {
			continue
		}
		switch value := keys[key].(type) {
		case string:
			values[key] = value
		case bool:
			values[key] = fmt.Sprint(value)
		case nil:
		default:
			return nil, fmt.Errorf("%s: %s is neither a text nor true or false", path, key)
		}
	}
	for _, key := range []string{"nsc", "socks_proxy", "user_jwt", "jetstream_api_prefix", "windows_cert_store"} {
		if value := keys[key]; value != nil && value != "" {
			return nil, fmt.Errorf("%s has %s, which this program can't do; take it out there, or leave the context out and set the NATS_... variables", path, key)
		}
	}
	return values, nil
}

// expand replaces ~ by the home folder, and variables by their values, as the nats command does.
func expand(path string, lookup func(string) (string, bool)) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok {
		path = home(lookup) + rest
	}
	return os.Expand(path, func(name string) string { value, _ := lookup(name); return value })
}

func home(lookup func(string) (string, bool)) string {
	if folder, _ := lookup("HOME"); folder != "" {
		return folder
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}
