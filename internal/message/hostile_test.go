package message

import (
	"strings"
	"testing"
	"unicode"

	"example.com/unrestrict-worker/internal/message/messagetest"
)

// Whatever is wrong with a message: it is refused, it gets no id of its own, and what is said of it fits a header.
func TestHostileMessages(t *testing.T) {
	for name, m := range messagetest.Hostile(2000, Header{"Nats-Msg-Id": {"header"}, "Nats-Rollup": {"all"}}) {
		d := sampleDelivery("")
		d.Header, d.Data = m.Header, m.Data
		checkHostile(t, name, d)
	}
}

func checkHostile(t *testing.T, name string, d Delivery) {
	t.Helper()
	req, invalid := sampleRules.Parse(d)
	if invalid == nil {
		t.Fatalf("%s: taken: %.300q %v", name, d.Data, d.Header)
	}
	want := CodeMalformed
	if len(d.Data) > MaxPayload {
		want = CodeTooLarge
	}
	if invalid.Code != want || !strings.Contains(invalid.Message, ":") || strings.ContainsFunc(invalid.Message, unicode.IsControl) || len(invalid.Message) > 2000 {
		t.Errorf("%s: %v for %.300q", name, invalid, d.Data)
	}
	if req.ID != d.Ref() || !req.Derived || invalid.ClaimedID != "" && checkID(invalid.ClaimedID) != nil {
		t.Errorf("%s: refused as %q, claiming %q: %.300q", name, req.ID, invalid.ClaimedID, d.Data)
	}
	h, body := DeadLetter{Delivery: d, Code: invalid.Code, Message: invalid.Message, RequestID: req.ID, Run: 1}.Render(1 << 20)
	if h.size()+len(body) > 1<<20 || h.Get("Nats-Rollup") != "" || len(body) != 0 && string(body) != string(d.Data) {
		t.Errorf("%s: dead letter of %d bytes: %v", name, len(body), h)
	}
}
