package defendersim

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// asText reads a duration such as "1.5s", and the body of an answer as plain text.
var asText = json.WithUnmarshalers(json.JoinUnmarshalers(
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, into *time.Duration) error {
		var text string
		err := json.UnmarshalDecode(d, &text)
		if err == nil {
			*into, err = time.ParseDuration(text)
		}
		return err
	}),
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, into *[]byte) error {
		var text string
		err := json.UnmarshalDecode(d, &text)
		*into = []byte(text)
		return err
	}),
))

//go:embed index.txt
var index string

// control is the API under /sim/, described in index.txt.
func (s *Server) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sim/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, index, strings.Join(operationNames(), ", "))
		for _, one := range s.Settings() {
			_, _ = fmt.Fprintf(w, "%-18s %-16s %s\n", one.Name, or(one.Value(), "-"), one.Help)
		}
	})
	mux.HandleFunc("GET /sim/settings", func(w http.ResponseWriter, _ *http.Request) { s.showSettings(w) })
	mux.HandleFunc("PATCH /sim/settings", func(w http.ResponseWriter, r *http.Request) {
		values, err := decodeSettings(r)
		if err == nil {
			err = s.Set(values)
		}
		if err != nil {
			accepted(w, err)
			return
		}
		s.showSettings(w)
	})
	mux.HandleFunc("DELETE /sim/tokens", func(w http.ResponseWriter, _ *http.Request) {
		s.RevokeTokens()
		accepted(w, nil)
	})
	mux.HandleFunc("POST /sim/faults", func(w http.ResponseWriter, r *http.Request) {
		f, err := ParseFault(r.Body)
		if err == nil {
			s.Inject(f)
		}
		accepted(w, err)
	})
	mux.HandleFunc("DELETE /sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		accepted(w, nil)
	})
	mux.HandleFunc("POST /sim/machines", func(w http.ResponseWriter, r *http.Request) {
		id, m, err := decodeMachine(r)
		if err == nil {
			s.AddMachine(id, m)
		}
		accepted(w, err)
	})
	mux.HandleFunc("GET /sim/machines", func(w http.ResponseWriter, _ *http.Request) {
		var all [][]byte
		for _, d := range s.devices() {
			all = append(all, s.entity(d, "", s.now()))
		}
		show(w, http.StatusOK, jsontext.Value(fmt.Appendf(nil, "[%s]", bytes.Join(all, []byte(",")))))
	})
	mux.HandleFunc("GET /sim/actions", func(w http.ResponseWriter, _ *http.Request) {
		show(w, http.StatusOK, s.Actions())
	})
	mux.HandleFunc("GET /sim/calls", func(w http.ResponseWriter, _ *http.Request) {
		show(w, http.StatusOK, s.Calls())
	})
	return mux
}

// show answers in plain JSON, unlike the API.
func show(w http.ResponseWriter, status int, v any) {
	rep := jsonReply(status, v)
	rep.set("Content-Type", "application/json; charset=utf-8")
	write(w, rep, "")
}

func accepted(w http.ResponseWriter, err error) {
	if err != nil {
		show(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// showSettings answers with one object: each switch with its value in the form in which it is set.
func (s *Server) showSettings(w http.ResponseWriter) {
	values := map[string]string{}
	for _, one := range s.Settings() {
		values[one.Name] = one.Value()
	}
	show(w, http.StatusOK, values)
}

// decodeSettings accepts numbers and booleans too, as their text.
func decodeSettings(r *http.Request) (map[string]string, error) {
	var in map[string]jsontext.Value
	if err := decode(r.Body, &in); err != nil {
		return nil, err
	}
	values := map[string]string{}
	for name, value := range in {
		values[name] = string(value)
		if value.Kind() == '"' {
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return nil, err
			}
			values[name] = text
		}
	}
	return values, nil
}

// decode refuses unknown members: a misspelt one would be a fault that never applies.
func decode(from io.Reader, into any) error {
	return json.UnmarshalRead(io.LimitReader(from, maxBody), into, json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(true), asText)
}

// ParseFault reads a fault as POST /sim/faults takes it.
func ParseFault(from io.Reader) (f Fault, err error) {
	if err := decode(from, &f); err != nil {
		return Fault{}, err
	}
	return f, f.check()
}

func decodeMachine(r *http.Request) (string, Machine, error) {
	var in struct {
		ID string
		Machine
	}
	err := decode(r.Body, &in)
	if err == nil && in.ID == "" {
		err = errors.New("id is missing")
	}
	return in.ID, in.Machine, err
}
