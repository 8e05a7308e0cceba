package message

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAmend(t *testing.T) {
	end := time.Date(2026, 12, 2, 3, 4, 5, 0, time.UTC)
	event := Header{"Content-Type": {"application/cloudevents+json"}}
	for name, c := range map[string]struct {
		header   Header
		in, want string
		end      time.Time
	}{
		"plain":           {nil, " { \"machineId\" : 1.0e1}\n", " {\"id\":\"a\\\"<b\", \"machineId\" : 1.0e1}\n", time.Time{}},
		"empty":           {nil, `{}`, `{"id":"a\"<b"}`, time.Time{}},
		"null stands for": {nil, `{"ID":null,"x":{"id":null},"ExpiresAt": null }`, `{"ID":"a\"<b","x":{"id":null},"ExpiresAt": "2026-12-02T03:04:05Z" }`, end},
		"both":            {nil, `{"x":1}`, `{"id":"a\"<b","expiresAt":"2026-12-02T03:04:05Z","x":1}`, end},
		"structured":      {event, `{"specversion":"1.0", "id":"7","data" : {"x":1} ,"y":2}`, `{"specversion":"1.0", "id":"7","data" : {"id":"a\"<b","x":1} ,"y":2}`, time.Time{}},
		"by its body":     {nil, `{"specversion":"1.0","data":{"x":1}}`, `{"specversion":"1.0","data":{"id":"a\"<b","x":1}}`, time.Time{}},
		"base64":          {event, `{"specversion":"1.0","data_base64":"eyJ4IjoxfQ=="}`, `{"specversion":"1.0","data_base64":"eyJpZCI6ImFcIjxiIiwieCI6MX0="}`, time.Time{}},
		"binary":          {Header{"ce-id": {"7"}, "ce-source": {"s"}}, `{"x":1}`, `{"id":"a\"<b","x":1}`, time.Time{}},
	} {
		got, err := Amend(Delivery{Header: c.header, Data: []byte(c.in)}, `a"<b`, c.end)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if n := ReadNaming(Delivery{Header: c.header, Data: got}); !n.ID || n.Expires == c.end.IsZero() {
			t.Errorf("%s: says %+v of itself", name, n)
		}
	}
	for _, bad := range []string{``, `[]`, `{"a":1}{}`, `{"specversion":"1.0"}`, `{"specversion":"1.0","data":[]}`} {
		if got, err := Amend(Delivery{Data: []byte(bad)}, "a", end); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
	}
}

func TestInvalidNamesItsField(t *testing.T) {
	for text, want := range map[string]string{
		"machineId: is required; add it": "machineId", "payload: is no JSON object": "", "CloudEvent: id: x": "", "metadata: has 9 bytes": "metadata",
	} {
		if got := (&Invalid{Message: text}).Field(); got != want {
			t.Errorf("%s: the field is %q", text, got)
		}
	}
}
