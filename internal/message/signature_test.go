package message

import (
	"encoding/base64"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"
)

type keyPair struct{ public, seed string }

func newKeyPair(t testing.TB) keyPair {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	return keyPair{public, string(seed)}
}

func (k keyPair) sign(t testing.TB, d Delivery) Delivery {
	t.Helper()
	signer, signature, err := Sign([]byte(k.seed), d.Subject, d.Data)
	if err != nil {
		t.Fatal(err)
	}
	h := Header{HeaderSigner: {signer}, HeaderSignature: {signature}}
	maps.Copy(h, d.Header)
	d.Header = h
	return d
}

// signersOf trusts one new key under the name.
func signersOf(t testing.TB, name string) (*Signers, func(Delivery) Delivery) {
	t.Helper()
	k := newKeyPair(t)
	s, err := ParseSigners(name + "=" + k.public)
	if err != nil {
		t.Fatal(err)
	}
	return s, func(d Delivery) Delivery { return k.sign(t, d) }
}

func TestSignedRequests(t *testing.T) {
	trusted, second, stranger := newKeyPair(t), newKeyPair(t), newKeyPair(t)
	signers, err := ParseSigners("ann=" + trusted.public + ", " + second.public)
	if err != nil {
		t.Fatal(err)
	}
	rules := sampleRules
	rules.Signers = signers
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	body := sampleFields(`"id":"mine","replyTo":"team.blue","expiresAt":"` + soon + `"`)
	plain := sampleDelivery(body)
	good := trusted.sign(t, plain)
	header := func(d Delivery, name, value string) Delivery {
		h := Header{}
		maps.Copy(h, d.Header)
		h[name] = []string{value}
		d.Header = h
		return d
	}
	signature := good.Header.Get(HeaderSignature)
	raw, _ := base64.RawURLEncoding.DecodeString(signature)
	raw[10] ^= 1
	say := func(members string) Delivery { return trusted.sign(t, sampleDelivery(sampleFields(members))) }
	event := func(data string) string {
		return `{"specversion":"1.0","type":"t","source":"/s","id":"e","data":` + data + `}`
	}
	late := time.Now().Add(7*24*time.Hour + time.Minute).UTC().Format(time.RFC3339)
	edge := time.Now().Add(7*24*time.Hour - time.Minute).UTC().Format(time.RFC3339)
	other := good
	other.Subject = "remediation.other"
	altered := good
	altered.Data = []byte(body + " ")

	for _, c := range []struct {
		what string
		d    Delivery
		code string // "": taken
		text string // the message's beginning, or the signer
	}{
		{"good", good, "", "ann"},
		{"good, by one without a name", second.sign(t, plain), "", second.public},
		{"padded", header(good, HeaderSignature, signature+"=="), "", "ann"},
		{"header names in any case", Delivery{Stream: plain.Stream, Subject: plain.Subject, Data: plain.Data, Header: Header{"request-signer": {trusted.public}, "REQUEST-SIGNATURE": {signature}}}, "", "ann"},
		{"as late as may be", say(`"id":"mine","expiresAt":"` + edge + `"`), "", "ann"},
		{"expired is not ours to judge", say(`"id":"mine","expiresAt":"2001-01-01T00:00:00Z"`), "", "ann"},
		{"event with an id in its data", trusted.sign(t, sampleDelivery(event(body))), "", "ann"},
		// The envelope has a request of its own: other headers must not turn the signed event into that one.
		{"event turned by headers", withHeaders(trusted.sign(t, sampleDelivery(envelope(body, soon))), binary()...), CodeMalformed, "CloudEvent: comes in both modes"},
		{"the same as it was signed", trusted.sign(t, sampleDelivery(envelope(body, soon))), "", "ann"},
		{"request turned to an event by a header", header(good, "Content-Type", "application/cloudevents+json"), CodeMalformed, "CloudEvent: specversion"},
		{"unsigned", plain, CodeUnsigned, "headers Request-Signer and Request-Signature: are required"},
		{"no signer", header(good, HeaderSigner, ""), CodeUnsigned, "headers"},
		{"no signature", header(good, HeaderSignature, ""), CodeUnsigned, "headers"},
		{"stranger", stranger.sign(t, plain), CodeUnknownSigner, "header Request-Signer: names no trusted signer"},
		{"name for a key", header(good, HeaderSigner, "ann"), CodeUnknownSigner, "header Request-Signer: names no trusted signer"},
		{"stranger's signature under a trusted key", header(stranger.sign(t, plain), HeaderSigner, trusted.public), CodeBadSignature, "header Request-Signature: is not this signer's"},
		{"another's signature", header(good, HeaderSigner, second.public), CodeBadSignature, "header Request-Signature: is not this signer's"},
		{"altered payload", altered, CodeBadSignature, "header Request-Signature: is not this signer's"},
		{"other subject", other, CodeBadSignature, "header Request-Signature: is not this signer's"},
		{"altered signature", header(good, HeaderSignature, base64.RawURLEncoding.EncodeToString(raw)), CodeBadSignature, "header Request-Signature: is not this signer's"},
		{"short signature", header(good, HeaderSignature, signature[:40]), CodeBadSignature, "header Request-Signature: is not this signer's"},
		{"not base64url", header(good, HeaderSignature, "!!!"), CodeBadSignature, "header Request-Signature: is not base64url"},
		{"no id", say(`"expiresAt":"` + soon + `"`), CodeMalformed, "id: is required in a signed request"},
		{"id in a header", header(say(`"expiresAt":"`+soon+`"`), "Nats-Msg-Id", "x"), CodeMalformed, "id: is required in a signed request"},
		{"id of the event alone", trusted.sign(t, sampleDelivery(event(sampleFields(`"expiresAt":"`+soon+`"`)))), CodeMalformed, "id: is required in a signed request"},
		{"no expiresAt", say(`"id":"mine"`), CodeMalformed, "expiresAt: is required in a signed request"},
		{"expiresAt null", say(`"id":"mine","expiresAt":null`), CodeMalformed, "expiresAt: is required in a signed request"},
		{"expiresAt wrong", say(`"id":"mine","expiresAt":"soon"`), CodeMalformed, "expiresAt: is no RFC 3339 time"},
		{"expires too late", say(`"id":"mine","expiresAt":"` + late + `"`), CodeExpiresTooLate, "expiresAt: is more than 7 days ahead"},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, invalid := rules.Parse(c.d)
			switch {
			case c.code == "" && (invalid != nil || got.SignedBy != c.text || got.ID != "mine"):
				t.Errorf("%+v, %v, want it taken, signed by %s", got, invalid, c.text)
			case c.code == "":
			case invalid == nil || invalid.Code != c.code || !strings.HasPrefix(invalid.Message, c.text):
				t.Errorf("%v, want %s %q", invalid, c.code, c.text)
			case c.code != CodeMalformed && c.code != CodeExpiresTooLate && (invalid.ClaimedID != "mine" || got.ReplyTo != "" || got.MachineID != ""):
				t.Errorf("unverified, but claims %q and is echoed as %+v", invalid.ClaimedID, got)
			}
			if invalid != nil && strings.Contains(invalid.Message, signature) {
				t.Error("the message shows a signature")
			}
		})
	}
	if got, invalid := rules.Parse(trusted.sign(t, sampleDelivery("{"))); invalid == nil || invalid.Code != CodeMalformed || got.SignedBy != "ann" {
		t.Errorf("rightly signed nonsense: %+v, %v", got, invalid)
	}
	// Nothing of an unverified message is judged but its signature.
	if _, invalid := rules.Parse(sampleDelivery("{")); invalid.Code != CodeUnsigned {
		t.Errorf("unsigned and malformed: %v", invalid)
	}
}

// envelope is an event whose extension attributes make a request too.
func envelope(data, expires string) string {
	return strings.TrimSuffix(structured(`"data":`+data), "}") + `,"machineid":"` + sampleMachine + `","comment":"c","expiresat":"` + expires + `"}`
}

func withHeaders(d Delivery, more ...string) Delivery {
	maps.Copy(d.Header, sampleDelivery("", more...).Header)
	return d
}

func TestParseSigners(t *testing.T) {
	a, b := newKeyPair(t), newKeyPair(t)
	for _, list := range []string{a.public + "," + b.public, a.public + " \n " + b.public, "," + a.public + ",, " + b.public + ",", b.public + "\t" + a.public} {
		s, err := ParseSigners(list)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{min(a.public, b.public), max(a.public, b.public)}
		if d := cmp.Diff(want, s.Names()); d != "" || s.Err() != nil {
			t.Error(d, s.Err())
		}
	}
	if s, err := ParseSigners("ann=" + a.public + ",ann=" + b.public); err != nil || cmp.Diff([]string{"ann"}, s.Names()) != "" {
		t.Errorf("two keys of one name: %v, %v", s, err)
	}
	if s, err := ParseSigners(""); s != nil || err != nil || s.Names() != nil || s.Err() != nil {
		t.Errorf("no list: %v, %v", s, err)
	}
	misspelt := a.public[:55] + "A" // its last character, in which the checksum shows
	if misspelt == a.public {
		misspelt = a.public[:55] + "B"
	}
	curve, _ := nkeys.CreateCurveKeys()
	curvePublic, _ := curve.PublicKey()
	for list, want := range map[string]string{
		" ":                                      "no signer",
		",":                                      "no signer",
		a.public + ",x":                          "signer 2: is no public nkey",
		"ann=":                                   "signer 1: is no public nkey",
		misspelt:                                 "signer 1: is no public nkey",
		strings.ToLower(a.public):                "signer 1: is no public nkey",
		curvePublic:                              "signer 1: is no public nkey",
		a.public + "," + a.public:                "signer 2: is there twice",
		"ann=" + a.seed:                          "signer 1: is a seed",
		b.public + " " + a.seed:                  "signer 2: is a seed",
		a.seed + "=" + a.public:                  "signer 1: is a seed",
		"Ann/SOC=" + a.public:                    "signer 1: its name must be 1 to 64",
		"Änn=" + a.public:                        "signer 1: its name must be 1 to 64",
		strings.Repeat("n", 65) + "=" + a.public: "signer 1: its name must be 1 to 64",
	} {
		_, err := ParseSigners(list)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.12q...: %v, want %q", list, err, want)
		}
		if err != nil && strings.Contains(err.Error(), a.seed[2:20]) {
			t.Error("the error shows a seed")
		}
	}
}

func TestSignersFile(t *testing.T) {
	a, b := newKeyPair(t), newKeyPair(t)
	path := filepath.Join(t.TempDir(), "signers")
	write := func(content string) {
		t.Helper()
		next := path + ".next" // as a mounted secret changes: another file in its place
		if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := SignersFile(path); err == nil {
		t.Error("took a file that is not there")
	}
	write("# nobody\n\n")
	if _, err := SignersFile(path); err == nil || !strings.Contains(err.Error(), "no signer in it") {
		t.Errorf("a file that names nobody: %v", err)
	}
	write("# people\n" + a.public + " Ann Example\n")
	if _, err := SignersFile(path); err == nil || !strings.Contains(err.Error(), "line 2: its name must be 1 to 64") {
		t.Errorf("a name with a blank: %v", err)
	}
	write("# people\n" + a.public + " Ann.Example # SOC\n\n")
	s, err := SignersFile(path)
	if err != nil {
		t.Fatal(err)
	}
	takes := func(k keyPair) string {
		t.Helper()
		name, _, _ := s.verify(k.sign(t, sampleDelivery("x")))
		return name
	}
	if got := takes(a); got != "Ann.Example" || takes(b) != "" {
		t.Errorf("signed by %q", got)
	}
	write(a.public + " Ann\n" + b.public + "\n")
	if takes(a) != "Ann" || takes(b) != b.public || s.Err() != nil {
		t.Errorf("a changed file is not read: %v", s.Err())
	}
	write(a.public + " Ann\nnonsense\n")
	if takes(a) != "Ann" || takes(b) != b.public || s.Err() == nil || !strings.Contains(s.Err().Error(), "line 2") {
		t.Errorf("a bad edit: %v", s.Err())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if takes(a) != "Ann" || s.Err() == nil {
		t.Errorf("a file that is gone: %v", s.Err())
	}
	write(b.public + " Bob\n")
	if takes(a) != "" || takes(b) != "Bob" || s.Err() != nil {
		t.Errorf("a mended file is not read: %v", s.Err())
	}
	// Written in place, the size being another.
	if err := os.WriteFile(path, []byte(b.public+" Robert\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := takes(b); got != "Robert" {
		t.Errorf("a file written in place: signed by %q", got)
	}
}

func TestSign(t *testing.T) {
	k := newKeyPair(t)
	for _, seed := range []string{k.seed, k.seed + "\n", "-----BEGIN USER NKEY SEED-----\n" + k.seed + "\n------END USER NKEY SEED------\n"} {
		signer, signature, err := Sign([]byte(seed), "a.b", []byte("payload"))
		if err != nil || signer != k.public {
			t.Fatalf("%s, %v", signer, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(signature)
		if err != nil {
			t.Fatal(err)
		}
		public, _ := nkeys.FromPublicKey(signer)
		if err := public.Verify([]byte("a.b\npayload"), raw); err != nil {
			t.Error(err)
		}
	}
	for _, seed := range []string{"", "x", k.public, k.seed[:30], strings.ToLower(k.seed)} {
		if _, _, err := Sign([]byte(seed), "a", nil); err == nil || seed != "" && len(seed) > 9 && strings.Contains(err.Error(), seed) {
			t.Errorf("%.4q...: %v", seed, err)
		}
	}
}

// FuzzSignature: whatever stands in the headers, nothing but a trusted key's own signature of these bytes is taken.
func FuzzSignature(f *testing.F) {
	k := newKeyPair(f)
	signers, err := ParseSigners("ann=" + k.public)
	if err != nil {
		f.Fatal(err)
	}
	d := k.sign(f, sampleDelivery(sampleFields("")))
	right := d.Header.Get(HeaderSignature)
	f.Add(k.public, right, d.Subject, d.Data)
	f.Add(k.public, right+"==", d.Subject, d.Data)
	f.Add(k.public, strings.Repeat("A", 86), d.Subject, d.Data)
	f.Add("", "", "", []byte(nil))
	f.Add(k.public, "!", "a\nb", []byte("\n"))
	f.Fuzz(func(t *testing.T, signer, signature, subject string, payload []byte) {
		got := Delivery{Subject: subject, Data: payload, Header: Header{HeaderSigner: {signer}, HeaderSignature: {signature}}}
		name, code, err := signers.verify(got)
		genuine := signer == k.public && strings.TrimRight(signature, "=") == right && subject+"\n"+string(payload) == d.Subject+"\n"+string(d.Data)
		if genuine != (err == nil) || genuine != (name == "ann") || genuine != (code == "") {
			t.Fatalf("%q %q %q %q: %q, %q, %v", signer, signature, subject, payload, name, code, err)
		}
	})
}
