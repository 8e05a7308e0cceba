package defendersim

import (
	_ "embed"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// asText: a duration reads as "1.5s", and the body of an answer as it is.
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
var index []byte

// control is the API under /sim/, described in the package comment.
func (s *Server) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sim/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(index)
	})
	mux.HandleFunc("POST /sim/faults", func(w http.ResponseWriter, r *http.Request) {
		f, err := decodeFault(r)
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
	mux.HandleFunc("GET /sim/actions", func(w http.ResponseWriter, _ *http.Request) {
		write(w, jsonReply(http.StatusOK, s.Actions()), "")
	})
	mux.HandleFunc("GET /sim/calls", func(w http.ResponseWriter, _ *http.Request) {
		write(w, jsonReply(http.StatusOK, s.Calls()), "")
	})
	return mux
}

func accepted(w http.ResponseWriter, err error) {
	if err != nil {
		write(w, jsonReply(http.StatusBadRequest, map[string]string{"error": err.Error()}), "")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// decode refuses unknown members: a misspelt one would be a fault that never strikes.
func decode(r *http.Request, into any) error {
	return json.UnmarshalRead(http.MaxBytesReader(nil, r.Body, maxBody), into, json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(true), asText)
}

func decodeFault(r *http.Request) (f Fault, err error) {
	if err := decode(r, &f); err != nil {
		return Fault{}, err
	}
	return f, f.check()
}

func decodeMachine(r *http.Request) (string, Machine, error) {
	var in struct {
		ID string
		Machine
	}
	err := decode(r, &in)
	if err == nil && in.ID == "" {
		err = errors.New("id is missing")
	}
	return in.ID, in.Machine, err
}
