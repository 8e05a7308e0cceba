package message

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func orderDelivery(payload string, h Header) Delivery {
	return Delivery{Stream: "REMEDIATION_CONTROL", Sequence: 7, Subject: "remediation.control", Header: h, Data: []byte(payload), Published: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
}

var sampleDigest = "sha256:" + strings.Repeat("0a", 32)

// samplesOfOrders are payloads, each with a part of why it is none; "" if it is one.
func samplesOfOrders() map[string]string {
	return map[string]string{
		`{"verb":"cancel","id":"INC-1"}`: "",
		`{"verb":"cancel","batch":"monday","reason":"wrong list","actions":true,"issuedAt":"2026-11-24T11:59:58Z"}`:                 "",
		`{"Verb":"cancel","ID":"x","signedBy":"ann","RUN":2,"expiresAt":"2026-11-24T12:00:01Z","digest":null,"other":[{"verb":1}]}`: "",
		`{"verb":"cancel","id":"x","client":"soar"}`:                          "",
		`{"verb":"pause","batch":"monday"}`:                                   "",
		`{"verb":"resume","batch":"` + strings.Repeat("日", 1024) + `"}`:       "",
		`{"verb":"approve","id":"x","digest":"` + sampleDigest + `","run":1}`: "",
		`{"verb":"deny","id":"x"}`:                                            "",
		``:                                                                    "payload: is no JSON object",
		`null`:                                                                "payload: is not a JSON object",
		`[]`:                                                                  "payload: is not a JSON object",
		`{"verb":"cancel","id":"x","id":"y"}`:                                 "payload: has the key",
		`{"verb":"cancel","id":"x","ID":"y"}`:                                 "id: is given in two spellings",
		`{"id":"x"}`:                                                          "verb: is required",
		`{"verb":"dance","id":"x"}`:                                           "verb: is none that there is",
		`{"verb":7,"id":"x"}`:                                                 "verb: is a number; give a string",
		`{"verb":"cancel"}`:                                                   "id: is required, or batch",
		`{"verb":"cancel","id":"x","batch":"b"}`:                              "id: is required, or batch",
		`{"verb":"cancel","id":""}`:                                           "id: is empty",
		`{"verb":"cancel","id":"` + strings.Repeat("x", 257) + `"}`:                     "id: has more than 256",
		`{"verb":"cancel","batch":"` + strings.Repeat("x", 1025) + `"}`:                 "batch: has 1025 characters",
		`{"verb":"cancel","id":"x","reason":"` + strings.Repeat("x", 1001) + `"}`:       "reason: has 1001 characters",
		`{"verb":"pause","id":"x"}`:                                                     "batch: is what pause is about",
		`{"verb":"approve","batch":"b","digest":"` + sampleDigest + `"}`:                "id: is what approve is about",
		`{"verb":"approve","id":"x"}`:                                                   "digest: is required",
		`{"verb":"approve","id":"x","digest":"sha256:00"}`:                              "digest: is none",
		`{"verb":"approve","id":"x","digest":"` + strings.ToUpper(sampleDigest) + `"}`:  "digest: is none",
		`{"verb":"cancel","id":"x","run":0}`:                                            "run: is no run",
		`{"verb":"cancel","id":"x","run":1.5}`:                                          "run: is no run",
		`{"verb":"cancel","batch":"b","run":1}`:                                         "run: is a request's",
		`{"verb":"cancel","id":"x","actions":"true"}`:                                   "actions: is a string; give true or false",
		`{"verb":"deny","id":"x","actions":true}`:                                       "actions: belongs to cancel",
		`{"verb":"cancel","id":"x","signedBy":"ann","client":"ben"}`:                    "signedBy: and client",
		`{"verb":"cancel","id":"x","signedBy":"an n"}`:                                  "signedBy: must be 1 to 64",
		`{"verb":"cancel","id":"x","expiresAt":"tomorrow"}`:                             "expiresAt: is no RFC 3339 time",
		`{"verb":"cancel","id":"x","expiresAt":"2026-11-24T12:00:00Z"}`:                 "expiresAt: the order expired",
		`{"verb":"cancel","id":"x","reason":"` + strings.Repeat("x", MaxPayload) + `"}`: "payload: has",
		`{"verb":"cancel","id":"x"`:                                                     "payload: is no JSON object: unexpected end",
		`{"verb":"cancel","id":"x"}{}`:                                                  "payload: is",
		`{"verb":"cancel","id":"x\u0007"}`:                                              "id: has control characters",
		`{"verb":"cancel","id":"x","issuedAt":12}`:                                      "issuedAt: is a number; give a string",
		`{"verb":"cancel","id":"x","reason":{"a":1}}`:                                   "reason: is an object; give a string",
	}
}

func TestOrders(t *testing.T) {
	for payload, want := range samplesOfOrders() {
		o, invalid := Rules{}.ParseOrder(orderDelivery(payload, nil))
		switch {
		case want == "" && invalid != nil:
			t.Errorf("%s: %v", payload, invalid)
		case want != "" && (invalid == nil || !strings.HasPrefix(invalid.Message, want) && !strings.Contains(invalid.Message, "; "+want)):
			t.Errorf("%s: got %v, want %s", payload, invalid, want)
		}
		if o.Ref != "REMEDIATION_CONTROL:7" || o.Stored.IsZero() {
			t.Errorf("%s: %+v does not say which message it was", payload, o)
		}
	}
}

// TestOrderComesBack: what is written is what is read.
func TestOrderComesBack(t *testing.T) {
	at := time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)
	for _, o := range []Order{
		{Verb: VerbCancel, ID: "<x>&", Signer: "ann", Run: 3, Reason: "wrong\nlist", Actions: true, IssuedAt: at, ExpiresAt: at.Add(2 * time.Hour)},
		{Verb: VerbPause, Batch: "monday", Client: "soar"},
		{Verb: VerbApprove, ID: "x", Digest: sampleDigest, Run: 1},
	} {
		payload, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, invalid := Rules{}.ParseOrder(orderDelivery(string(payload), nil))
		if invalid != nil {
			t.Fatal(invalid)
		}
		got.Ref, got.Stored = "", time.Time{}
		if diff := cmp.Diff(o, got); diff != "" {
			t.Error(diff)
		}
	}
}

// TestSignedOrders: an order is signed as a request is, for the control subject. What is unsigned or altered is nobody's.
func TestSignedOrders(t *testing.T) {
	signers, sign := signersOf(t, "ann")
	_, strange := signersOf(t, "ben")
	rules := Rules{Signers: signers}
	d := orderDelivery(`{"verb":"cancel","id":"x"}`, Header{HeaderClient: {"soar"}})
	good := sign(d)
	o, invalid := rules.ParseOrder(good)
	if invalid != nil || o.By != "ann" || o.Key != good.Header.Get(HeaderSigner) || o.Via != "soar" {
		t.Errorf("%+v, %v", o, invalid)
	}
	elsewhere := d
	elsewhere.Subject = "remediation.unrestrict"
	elsewhere = sign(elsewhere)
	elsewhere.Subject = d.Subject
	altered := good
	altered.Data = append(slices.Clone(good.Data), ' ')
	for want, d := range map[string]Delivery{CodeUnsigned: d, CodeUnknownSigner: strange(d), CodeBadSignature: altered, CodeBadSignature + " ": elsewhere} {
		o, invalid := rules.ParseOrder(d)
		if invalid == nil || invalid.Code != strings.TrimSpace(want) || invalid.ClaimedID != "x" || o.By != "" || o.Verb != "" {
			t.Errorf("want %s: %+v, %v", want, o, invalid)
		}
	}
	if _, invalid := (Rules{}).ParseOrder(orderDelivery(`{"verb":"cancel","id":"x"}`, Header{HeaderClient: {"a b"}})); invalid == nil || invalid.Code != CodeMalformed {
		t.Errorf("a client's name of the wrong form: %v", invalid)
	}
}

// TestOrderSchema: what the schema takes the worker takes, and the other way round where a schema can tell.
func TestOrderSchema(t *testing.T) {
	schema := readSchema(t, "control")
	onlyWorker := []string{"payload: has", "id: is given in two", "expiresAt: the order expired", "payload: is", "signedBy: and", "run: is a"}
	for payload, want := range samplesOfOrders() {
		if slices.ContainsFunc(onlyWorker, func(s string) bool { return strings.HasPrefix(want, s) }) || strings.Contains(payload, `"Verb"`) {
			continue
		}
		if err := schema.Validate(readJSON(t, []byte(payload))); (err == nil) != (want == "") {
			t.Errorf("%s: the schema says %v, the worker %q", payload, err, want)
		}
	}
}

// FuzzOrder: whatever comes is an order of good form or has a reason why not, and neither is without bounds.
func FuzzOrder(f *testing.F) {
	for payload := range samplesOfOrders() {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		o, invalid := Rules{}.ParseOrder(orderDelivery(string(payload), nil))
		if invalid != nil {
			if invalid.Code == "" || invalid.Message == "" {
				t.Errorf("%q: %+v", payload, invalid)
			}
			return
		}
		if (o.ID == "") == (o.Batch == "") || checkVerb(o.Verb) != nil || len(o.Reason) > 4*maxReason {
			t.Errorf("%q: %+v", payload, o)
		}
		again, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, invalid := (Rules{}).ParseOrder(orderDelivery(string(again), nil)); invalid != nil {
			t.Errorf("%q became %q: %v", payload, again, invalid)
		}
	})
}
