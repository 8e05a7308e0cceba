package defender

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCorrelationID: every exchange that was answered says what the service calls it, and never what it must not.
func TestCorrelationID(t *testing.T) {
	refusal := func(status int, target string) func(...string) (int, string, []string) {
		return func(header ...string) (int, string, []string) {
			return status, fmt.Sprintf(`{"error":{"code":"BadRequest","message":"m","target":%q}}`, target), header
		}
	}
	accepted := func(header ...string) (int, string, []string) { return 201, created, header }
	unreadable := func(header ...string) (int, string, []string) { return 201, "<html>", header }
	for name, c := range map[string]struct {
		answer func(...string) (int, string, []string)
		header []string
		want   string
	}{
		"accepted, live":           {accepted, []string{"mise-correlation-id", "id-0", "x-ms-request-id", "other"}, "id-0"},
		"refused, live":            {refusal(400, "a-target"), []string{"mise-correlation-id", "id-6"}, "id-6"},
		"429, live":                {refusal(429, "tenant"), []string{"mise-correlation-id", "id-7", "request-id", "other"}, "id-7"},
		"live, but no id":          {refusal(400, "a-target"), []string{"mise-correlation-id", "a b"}, "a-target"},
		"the token in base64":      {accepted, []string{"mise-correlation-id", b64(secretToken)[3:120]}, ""},
		"accepted":                 {accepted, []string{"x-ms-request-id", "id-1"}, "id-1"},
		"accepted, Graph's header": {accepted, []string{"request-id", "id-2"}, "id-2"},
		"accepted, none":           {accepted, nil, ""},
		"unreadable":               {unreadable, []string{"x-ms-request-id", "id-3"}, "id-3"},
		"refused":                  {refusal(400, "43f4cb08-8fac-4b65-9db1-745c2ae65f3a"), []string{"request-id", "other"}, "43f4cb08-8fac-4b65-9db1-745c2ae65f3a"},
		"refused, hierarchical":    {refusal(500, "|3f2a.1."), nil, "|3f2a.1."},
		"refused, no target":       {refusal(400, ""), []string{"request-id", "id-4"}, "id-4"},
		"429 names the tenant":     {refusal(429, "tenant"), []string{"request-id", "id-5"}, "id-5"},
		"control characters":       {refusal(400, "a\u001b[31mb"), nil, ""},
		"beyond ASCII":             {refusal(400, "idé"), nil, ""},
		"blank in it":              {accepted, []string{"request-id", "a b"}, ""},
		"too long":                 {refusal(400, strings.Repeat("a", 129)), nil, ""},
		"as long as may be":        {refusal(400, strings.Repeat("a", 128)), nil, strings.Repeat("a", 128)},
		"the token, echoed":        {accepted, []string{"x-ms-request-id", secretToken[len(secretToken)-60:]}, ""},
		"some other token":         {refusal(400, "eyJhbGciOiJSUzI1NiJ9.abc"), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, body, header := c.answer(c.header...)
			client, _ := dialTo(t, serve(t, answer(status, body, header...)).URL)
			began := time.Now()
			a, err := post(t.Context(), client)
			got := a.Exchange
			if e, ok := errors.AsType[*Error](err); ok {
				got = e.Exchange
			}
			if want := (Exchange{At: got.At, Op: "unrestrict", StatusCode: status, CorrelationID: c.want}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got.At.Before(began) || time.Now().Before(got.At) {
				t.Errorf("began %s, between %s and now", got.At, began)
			}
		})
	}
}

// TestExchangeOfLookUps: a page and an action say which exchange gave them.
func TestExchangeOfLookUps(t *testing.T) {
	client, _ := dialTo(t, serve(t, answer(200, `{"value":[`+created+`]}`, "request-id", "page-1")).URL)
	page, err := client.Page(t.Context(), UseLookup, Query{})
	if err != nil || page.Exchange.Op != "list" || page.Exchange.CorrelationID != "page-1" || page.Exchange.StatusCode != 200 {
		t.Errorf("%v %+v", err, page.Exchange)
	}
	client, _ = dialTo(t, serve(t, answer(200, created, "request-id", "get-1")).URL)
	a, err := client.Action(t.Context(), UseLookup, actionID)
	if err != nil || a.Exchange.Op != "get" || a.Exchange.CorrelationID != "get-1" {
		t.Errorf("%v %+v", err, a.Exchange)
	}
}
