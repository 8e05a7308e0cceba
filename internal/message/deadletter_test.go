package message

import (
	"crypto/sha256"
	"encoding/hex"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func sampleDead(d Delivery) DeadLetter {
	return DeadLetter{
		Delivery: d, Code: CodeMalformed, Message: "machineId: is not 40\r\nhexadecimal digits", RequestID: d.Ref(), Run: 1,
		Time: time.Date(2026, 11, 23, 18, 0, 1, 0, time.UTC),
	}
}

func TestDeadLetterGolden(t *testing.T) {
	d := sampleDelivery("{\"machineId\": \"desktop-1\xff\"}", "Nats-Msg-Id", "corpus-1", "Nats-Own", "a", "Nats-Own", "b", "nats-ttl", "1h", "X-A", "1", "x-a", "3",
		"X-Empty", "", "X-Text", "a: b; c=\"d\" é", "Deadletter-Reason", "forged", "deadletter-header-nats-rollup", "all", "X/Y%", "z", "X Z", "z", "traceparent", sampleTrace,
		HeaderSigner, "UA", HeaderSignature, "sig")
	h, body := sampleDead(d).Render(1 << 20)
	golden(t, "deadletter.txt", messageText(h, body))
	if string(body) != string(d.Data) {
		t.Errorf("payload %q", body)
	}
}

func TestDeadLetterLimit(t *testing.T) {
	d := sampleDelivery(strings.Repeat("x", 1000), "Nats-Msg-Id", "largest", "X-Big", strings.Repeat("b", 500), "X-Small", "s", "X-Also", "s")
	dead := sampleDead(d)
	whole, _ := dead.Render(0)
	exact := whole.size() + len(d.Data)
	if h, body := dead.Render(exact); h.Get(HeaderDeadTruncated) != "" || len(body) != 1000 {
		t.Errorf("at exactly its size: %v, %d bytes", h, len(body))
	}
	h, body := dead.Render(exact - 1)
	if h.Get(HeaderDeadTruncated) != "true" || len(body) != 0 || h.Get("X-Big") == "" || h.Get("Deadletter-Header-Nats-Msg-Id") != "largest" {
		t.Errorf("a byte too large: %v, %d bytes", h, len(body))
	}
	if sum := sha256.Sum256(d.Data); h.Get(HeaderDeadDigest) != "sha256:"+hex.EncodeToString(sum[:]) || h.Get(HeaderDeadSize) != "1000" {
		t.Errorf("what was left out: %v", h)
	}
	for size, whole := range map[int]bool{MaxPayload: true, MaxPayload + 1: false} {
		large := sampleDelivery(strings.Repeat("x", size))
		h, body := sampleDead(large).Render(0)
		if (len(body) == size) != whole || (h.Get(HeaderDeadSize) == "") != whole || !whole && h.Get(HeaderDeadSize) != strconv.Itoa(size) {
			t.Errorf("%d bytes: %d, %v", size, len(body), h)
		}
	}
	limit := whole.size() - 100 // its headers alone are too large
	h, body = dead.Render(limit)
	if h.Get("X-Big") != "" || h.Get("X-Small") != "s" || h.Get("X-Also") != "s" || h.Get("Deadletter-Header-Nats-Msg-Id") != "largest" ||
		h.Get(HeaderDeadReason) != CodeMalformed || len(body) != 0 || h.size() > limit {
		t.Errorf("headers too large: %v", h)
	}
	h, _ = dead.Render(1) // what is the worker's own stays
	if h.Get("X-Small") != "" || h.Get(HeaderDeadSequence) != "42" {
		t.Errorf("no room at all: %v", h)
	}
	if _, _, _, err := OriginalDelivery(h, nil); err == nil || !strings.Contains(err.Error(), "left out") {
		t.Errorf("a letter without its payload is replayed: %v", err)
	}
}

func TestDeadLetterMessageID(t *testing.T) {
	d := sampleDead(sampleDelivery(""))
	seen := map[string]bool{d.MessageID(): true}
	if again := d.MessageID(); !seen[again] {
		t.Errorf("another message id the second time: %s", again)
	}
	for _, change := range []func(*DeadLetter){
		func(d *DeadLetter) { d.Run = 2 },
		func(d *DeadLetter) { d.Delivery.Sequence = 43 },
		func(d *DeadLetter) { d.Delivery.Stream = "OTHER" },
		func(d *DeadLetter) { d.Delivery.Published = d.Delivery.Published.Add(time.Hour) }, // the stream was made anew
	} {
		other := d
		change(&other)
		if seen[other.MessageID()] {
			t.Errorf("%+v has a message id that is taken", other)
		}
		seen[other.MessageID()] = true
	}
	later := d
	later.Time, later.Message, later.Delivery.Attempt = later.Time.Add(time.Hour), "x", 7
	if later.MessageID() != d.MessageID() {
		t.Error("the message id changes from delivery to delivery")
	}
	if got := sampleDead(Delivery{Stream: "S", Sequence: 1}).MessageID(); got != "deadletter:S:1:1:0" {
		t.Errorf("without a time: %s", got)
	}
}

// sent is the header as it comes out at the other end: nats.go trims values and has no line ends in them.
func sent(t interface{ Fatalf(string, ...any) }, h Header) Header {
	out := Header{}
	for name, values := range h {
		for i := range len(name) {
			if !isNameByte(name[i]) {
				t.Fatalf("the name %q can't be sent", name)
			}
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n") {
				t.Fatalf("%s: %q breaks out of its header", name, v)
			}
			out[name] = append(out[name], textproto.TrimString(v))
		}
	}
	return out
}

// Whatever headers a message comes with: its dead letter says what the worker says, nothing in it acts on the broker,
// and the message comes out of it as it was.
func TestDeadLetterRoundTrip(t *testing.T) {
	names := rapid.OneOf(
		rapid.StringMatching(`[!-~]{1,12}`),
		rapid.SampledFrom([]string{"Nats-Msg-Id", "nats-rollup", "Nats-Expected-Stream", "Deadletter-Reason", "DEADLETTER-TRUNCATED", "Deadletter-Header-Nats-Msg-Id", "X%41", "Nats-%41", "X A", "ü", "Status", "STATUS", "description", "Nats-Pin-Id", "Reply-To"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		d := sampleDelivery(rapid.String().Draw(t, "payload"))
		for _, name := range rapid.SliceOfN(names, 0, 6).Draw(t, "names") {
			if !strings.EqualFold(name, HeaderReplay) {
				d.Header[name] = rapid.SliceOfN(rapid.StringMatching(`([!-~é]([ -~]*[!-~])?)?`), 1, 2).Draw(t, "values")
			}
		}
		dead := sampleDead(d)
		dead.RequestID, dead.Run = rapid.StringN(1, 60, -1).Draw(t, "id"), rapid.IntRange(1, 9).Draw(t, "run")
		if strings.HasPrefix(dead.RequestID, "REMEDIATION:") {
			return
		}
		h, body := dead.Render(0)
		h = sent(t, h)
		for name, values := range h {
			if hasPrefix(name, "Nats-") && (name != "Nats-Msg-Id" || len(values) != 1 || values[0] != dead.MessageID()) {
				t.Fatalf("%s: %q would act on the broker", name, values)
			}
			if strings.EqualFold(name, "Status") || strings.EqualFold(name, "Description") {
				t.Fatalf("%s: %q would pass for an answer of JetStream", name, values)
			}
			if hasPrefix(name, deadPrefix) && !strings.HasPrefix(name, deadPrefix) {
				t.Fatalf("%s passes for one of the worker's", name)
			}
		}
		if h.Get(HeaderDeadReason) != CodeMalformed || h.Get(HeaderDeadTruncated) != "" {
			t.Fatalf("%v is not what the worker said", h)
		}
		got, run, id, err := OriginalDelivery(h, body)
		if err != nil {
			t.Fatal(err)
		}
		d.Attempt = 1
		if diff := cmp.Diff(d, got); diff != "" || run != dead.Run || id != dead.RequestID {
			t.Fatalf("run %d of %q instead of %d of %q: %s", run, id, dead.Run, dead.RequestID, diff)
		}
	})
}

// A request has the same id in every run, wherever it got it from, and its signature holds.
func TestReplays(t *testing.T) {
	signers, sign := signersOf(t, "ann")
	signed := sampleRules
	signed.Signers = signers
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct {
		what  string
		rules Rules
		d     Delivery
		id    string
	}{
		{"own id", sampleRules, sampleDelivery(sampleFields(`"id":"own"`), "Nats-Msg-Id", "x"), "own"},
		{"header", sampleRules, sampleDelivery(sampleFields(""), "Nats-Msg-Id", "by-header"), "by-header"},
		{"derived", sampleRules, sampleDelivery(sampleFields("")), "REMEDIATION:42"},
		{"event", sampleRules, sampleDelivery(sampleFields(""), binary("Nats-Msg-Id", "x")...), "/soar#1"},
		{"signed", signed, sign(sampleDelivery(sampleFields(`"id":"s","expiresAt":"` + soon + `"`))), "s"},
	} {
		t.Run(c.what, func(t *testing.T) {
			origin, d := c.d, c.d
			for run := 1; run < 5; run++ {
				req, invalid := c.rules.Parse(origin)
				if invalid != nil || req.ID != c.id || req.Derived != (c.id == "REMEDIATION:42") {
					t.Fatalf("run %d: %+v, %v", run, req, invalid)
				}
				// The letter is made of the original with the replay's place, or of the replay as it came.
				dead := DeadLetter{Delivery: origin, Code: "ResourceNotFound", Message: "m", RequestID: req.ID, Run: run, Attempts: 2, Time: time.Now()}
				if run%2 == 0 {
					dead.Delivery.Header = d.Header
				}
				dead.Delivery.Stream, dead.Delivery.Sequence = d.Stream, d.Sequence
				h, body := dead.Render(1 << 20)
				if n := len(h); n > len(c.d.Header)+12 {
					t.Fatalf("run %d: headers pile up: %v", run, h)
				}

				d.Header, d.Sequence, d.Published = sent(t, ReplayHeader(uint64(run), h)), d.Sequence+10, d.Published.Add(time.Hour)
				seq, ok, invalid := ParseReplay(d.Header)
				if !ok || seq != uint64(run) || invalid != nil || d.Header.Get("Nats-Msg-Id") != "replay:"+strconv.Itoa(run) {
					t.Fatalf("replay %v: %d, %v, %v", d.Header, seq, ok, invalid)
				}
				for what, header := range map[string]Header{"from the letter": sent(t, h), "with the letter gone": d.Header} {
					got, ended, id, err := OriginalDelivery(header, body)
					if err != nil {
						t.Fatal(err)
					}
					if ended != run || id != c.id || !got.Published.Equal(c.d.Published) || got.Subject != c.d.Subject {
						t.Fatalf("%s: run %d of %q, %+v", what, ended, id, got)
					}
					if d := cmp.Diff(c.d.Header, got.Header); d != "" {
						t.Fatalf("%s: %s", what, d)
					}
					origin = got
				}
				// As a new message it has the id its sender gave it, never the replay's own.
				if req, invalid := c.rules.Parse(d); invalid == nil && req.ID != c.id && !req.Derived {
					t.Fatalf("taken as new: %+v", req)
				}
			}
		})
	}
}

func TestParseReplay(t *testing.T) {
	if seq, ok, invalid := ParseReplay(Header{"UNRESTRICT-REPLAY": {"18446744073709551615"}}); seq != 1<<64-1 || !ok || invalid != nil {
		t.Errorf("%d, %v, %v", seq, ok, invalid)
	}
	if _, ok, invalid := ParseReplay(Header{"Unrestrict-Replay": {""}}); ok || invalid != nil {
		t.Errorf("empty: %v, %v", ok, invalid)
	}
	for _, mark := range []string{"0", "-1", "+1", "1.5", "x", "007", "18446744073709551616", " 1", "１"} {
		if seq, ok, invalid := ParseReplay(Header{HeaderReplay: {mark}}); ok || invalid == nil || invalid.Code != CodeMalformed {
			t.Errorf("%q: %d, %v, %v", mark, seq, ok, invalid)
		}
		if _, invalid := sampleRules.Parse(sampleDelivery(sampleFields(`"id":"mine"`), HeaderReplay, mark)); invalid == nil || invalid.ClaimedID != "mine" {
			t.Errorf("%q is taken as an ordinary request: %v", mark, invalid)
		}
	}
	// The mark alone makes no message a replay of ours.
	if req, invalid := sampleRules.Parse(sampleDelivery(sampleFields(""), HeaderReplay, "5", "Nats-Msg-Id", "replay:6")); invalid != nil || req.ID != "replay:6" {
		t.Errorf("%+v, %v", req, invalid)
	}
}

func TestOriginalDeliveryRefuses(t *testing.T) {
	h, body := sampleDead(sampleDelivery("x")).Render(0)
	for _, name := range []string{HeaderDeadRun, HeaderDeadSequence, HeaderDeadStream, HeaderDeadSubject, HeaderDeadPublished, HeaderDeadRequestID} {
		broken := sent(t, h)
		delete(broken, name)
		if _, _, _, err := OriginalDelivery(broken, body); err == nil {
			t.Errorf("taken without %s", name)
		}
	}
	for name, value := range map[string]string{HeaderDeadRun: "0", HeaderDeadSequence: "x", HeaderDeadPublished: "now", HeaderDeadRequestID: "REMEDIATION:99999999999999999999"} {
		broken := sent(t, h)
		broken[name] = []string{value}
		if _, _, _, err := OriginalDelivery(broken, body); err == nil {
			t.Errorf("taken with %s: %s", name, value)
		}
	}
	if _, _, _, err := OriginalDelivery(nil, nil); err == nil {
		t.Error("taken without headers")
	}
}

func TestReadDeadLetter(t *testing.T) {
	d := sampleDead(sampleDelivery("x", "Nats-Msg-Id", "y"))
	d.RequestID, d.Run, d.Attempts, d.Message = " odd %41 ", 3, 7, "one line"
	h, body := d.Render(0)
	if diff := cmp.Diff(d, ReadDeadLetter(sent(t, h), body)); diff != "" {
		t.Error(diff)
	}
	// One without its payload still tells what it was.
	h, body = d.Render(1)
	got := ReadDeadLetter(sent(t, h), body)
	if got.RequestID != d.RequestID || got.Code != d.Code || got.Delivery.Subject != d.Delivery.Subject || got.Delivery.Stream != d.Delivery.Stream {
		t.Errorf("%+v", got)
	}
}
