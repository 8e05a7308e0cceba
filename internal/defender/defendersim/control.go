package defendersim

import (
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// span is a duration that reads as text: "1.5s".
type span time.Duration

func (d *span) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = span(v)
	return err
}

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

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields() // a misspelt member would be a fault that never strikes
	return d.Decode(into)
}

func decodeFault(r *http.Request) (Fault, error) {
	var in struct {
		Op, Machine, Code, Message, Cut string
		Times, Status                   int
		Probability                     float64
		Body                            *string
		Header                          http.Header
		RetryAfter, Latency             span
		CarriedOut, Hang                bool
	}
	if err := decode(r, &in); err != nil {
		return Fault{}, err
	}
	f := Fault{
		Op: in.Op, Machine: in.Machine, Times: in.Times, Probability: in.Probability, Status: in.Status, Code: in.Code,
		Message: in.Message, Header: in.Header, RetryAfter: time.Duration(in.RetryAfter), Latency: time.Duration(in.Latency),
		CarriedOut: in.CarriedOut, Cut: in.Cut, Hang: in.Hang,
	}
	if in.Body != nil {
		f.Body = []byte(*in.Body)
	}
	return f, f.check()
}

func decodeMachine(r *http.Request) (string, Machine, error) {
	var in struct {
		ID, Outcome, DNSName string
		Offline              bool
		Pending, InProgress  span
	}
	if err := decode(r, &in); err != nil {
		return "", Machine{}, err
	}
	if in.ID == "" {
		return "", Machine{}, errors.New("id is missing")
	}
	return in.ID, Machine{
		Outcome: in.Outcome, Offline: in.Offline, Pending: time.Duration(in.Pending),
		InProgress: time.Duration(in.InProgress), DNSName: in.DNSName,
	}, nil
}
