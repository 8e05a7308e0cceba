package intake

import (
	"cmp"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// submission is a request as it is to be published.
type submission struct {
	message.Delivery
	req   message.Request
	newID bool // its id was made here, so that no earlier message can have it
}

// signFor is how long a request that the intake signs is valid, if it has no expiry of its own.
const signFor = 24 * time.Hour

// read reads a request from a body and judges it as the worker would.
func (s *Server) read(w http.ResponseWriter, r *http.Request, c *clients.Client) (submission, *problem) {
	var a submission
	lane, p := laneOf(r, c, message.LaneNormal)
	if p == nil {
		p = checkMediaType(r)
	}
	if p != nil {
		return a, p
	}
	body, p := readBody(w, r, message.MaxPayload)
	if p != nil {
		return a, p
	}
	a.Delivery = message.Delivery{
		Stream: s.rules.Stream, Subject: s.link.cfg.Names.LaneSubject(lane), Lane: lane, Data: body, Header: headers(r.Header, c), Published: time.Now(),
	}
	if p := s.complete(&a, r, c); p != nil {
		return a, p
	}
	if a.req, p = s.judge(a.Delivery); p == nil && c.Signs() && a.req.Signer != c.Signer {
		p = fault(codeForbidden, "the signature is another's; the client's own requests are taken here")
	}
	return a, p
}

// judge checks a request against the worker's rules, except for the policy, which only the worker applies.
func (s *Server) judge(d message.Delivery) (message.Request, *problem) {
	req, invalid := s.rules.Parse(d)
	if invalid != nil {
		p := fault(invalid.Code, invalid.Message)
		p.Field = invalid.Field()
		return req, p
	}
	if !req.ExpiresAt.IsZero() && !time.Now().Before(req.ExpiresAt) {
		p := fault(message.CodeExpired, "expiresAt: is over; give a later one, or leave it out")
		p.Field = "expiresAt"
		return req, p
	}
	return req, nil
}

// laneOf is the requested lane, if the client has it.
func laneOf(r *http.Request, c *clients.Client, usual message.Lane) (message.Lane, *problem) {
	lane := usual
	if name := r.URL.Query().Get("lane"); name != "" {
		var err error
		if lane, err = message.ParseLane(name); err != nil {
			return "", malformed("lane", "lane: there is no such lane; it is one of "+message.LaneNames(message.Lanes()))
		}
	}
	if slices.Contains(c.Lanes, lane) {
		return lane, nil
	}
	return "", fault(codeForbidden, "the client does not have the lane "+string(lane))
}

// checkMediaType refuses bodies that are not declared as JSON: a page of another site can make a browser send a form or
// a text.
func checkMediaType(r *http.Request) *problem {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" && kind != "application/cloudevents+json" && kind != "application/cloudevents" {
		return fault(codeMediaType, "send application/json, or application/cloudevents+json with one event")
	}
	return checkEncoding(r)
}

// checkEncoding refuses an encoded body: its decoded size would have no bound.
func checkEncoding(r *http.Request) *problem {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return fault(codeMediaType, "send the body as it is, without Content-Encoding")
	}
	return nil
}

// readBody reads a body of at most so many bytes, before anything in it is parsed.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, *problem) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, fault(message.CodeTooLarge, "the body has more bytes than are taken; leave out what need not be echoed")
	}
	if err != nil {
		return nil, fault(message.CodeMalformed, "the body did not come whole; send it again")
	}
	return body, nil
}

// headers are those of the message: those of the request's format, the client's name, and the signature of a client
// that signs itself. No other header is passed on, because some mean something to the broker or the worker.
func headers(from http.Header, c *clients.Client) message.Header {
	h := message.Header{message.HeaderClient: {c.Name}}
	for name, values := range from {
		lower := strings.ToLower(name)
		switch {
		case strings.HasPrefix(lower, "ce-"), lower == "traceparent", lower == "tracestate", lower == "content-type":
			h[lower] = values
		case c.Signs() && (strings.EqualFold(name, message.HeaderSigner) || strings.EqualFold(name, message.HeaderSignature)):
			h[name] = values
		}
	}
	return h
}

// complete gives the request its id and, if the intake signs for the client, an expiry and the signature.
func (s *Server) complete(a *submission, r *http.Request, c *clients.Client) *problem {
	if c.Seed != nil && (r.Header.Get(message.HeaderSigner) != "" || r.Header.Get(message.HeaderSignature) != "") {
		return fault(codeForbidden, "the intake signs for this client; leave the signature out")
	}
	names := message.ReadNaming(a.Delivery)
	var id string
	var ends time.Time
	if !names.ID && !c.Signs() {
		key, p := idempotencyKey(r)
		if p != nil {
			return p
		}
		if id = cmp.Or(key, names.EventID); id == "" {
			id, a.newID = service.RandomID()+service.RandomID(), true
		}
	}
	if c.Seed != nil && !names.Expires {
		ends = time.Now().Add(signFor)
	}
	if id != "" || !ends.IsZero() {
		if data, err := message.Amend(a.Delivery, id, ends); err == nil { // else it is malformed, and Parse reports it
			a.Data = data
		}
	}
	return s.sign(a, c)
}

// sign signs with the client's own key, if the intake has it.
func (s *Server) sign(a *submission, c *clients.Client) *problem {
	if c.Seed == nil {
		return nil
	}
	signer, signature, err := message.Sign(c.Seed, a.Subject, a.Data)
	if err != nil {
		return fault(codeNotQueued, "the client's key can't be used")
	}
	a.Header[message.HeaderSigner], a.Header[message.HeaderSignature] = []string{signer}, []string{signature}
	return nil
}

// idempotencyKey is the header of that name. The draft requires quotes, which may be missing here.
func idempotencyKey(r *http.Request) (string, *problem) {
	key := r.Header.Get("Idempotency-Key")
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(key[1 : len(key)-1])
	}
	if !utf8.ValidString(key) {
		return "", fault(message.CodeMalformed, "header Idempotency-Key: is not UTF-8")
	}
	return key, nil
}
