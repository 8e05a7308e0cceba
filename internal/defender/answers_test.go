package defender

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAccepted: a 2xx is an acceptance if it bears an action that can be ours, and else ambiguous.
func TestAccepted(t *testing.T) {
	other := strings.Repeat("f", 40)
	huge := `{"id":"` + actionID + `","machineId":"` + machine + `","pad":"` + strings.Repeat("x", 3<<20) + `"}`
	for name, c := range map[string]struct {
		status int
		body   string
		code   string // "" = accepted
	}{
		"201":                  {201, created, ""},
		"200":                  {200, created, ""},
		"202":                  {202, created, ""},
		"id alone":             {201, `{"id":"a"}`, ""},
		"machine in caps":      {201, strings.ReplaceAll(created, machine, strings.ToUpper(machine)), ""},
		"3 MiB":                {201, huge, ""},
		"wrong types":          {201, `{"id":"a","type":7,"machineId":[]}`, ""},
		"no id":                {201, `{"status":"Pending"}`, codeNoAction},
		"empty object":         {201, `{}`, codeNoAction},
		"null":                 {201, `null`, codeNoAction},
		"empty":                {201, ``, codeNoAction},
		"204":                  {204, ``, codeNoAction},
		"another machine":      {201, strings.ReplaceAll(created, machine, other), codeNoAction},
		"another type":         {201, strings.ReplaceAll(created, "UnrestrictCodeExecution", "Isolate"), codeNoAction},
		"html":                 {201, `<html>`, codeUnreadable},
		"cut json":             {201, created[:50], codeUnreadable},
		"more than the limit":  {201, `{"id":"a","pad":"` + strings.Repeat("x", maxAction) + `"}`, codeUnreadable},
		"an error with a 2xx":  {200, `{"error":{"code":"Some"}}`, codeNoAction},
		"a list with a 2xx":    {200, `{"value":[` + created + `]}`, codeNoAction},
		"the id in a wrong 2x": {299, `{"id":7}`, codeNoAction},
	} {
		t.Run(name, func(t *testing.T) {
			c1, _ := dialTo(t, serve(t, answer(c.status, c.body)).URL)
			a, err := post(t.Context(), c1)
			if c.code == "" {
				if err != nil || a.ID == "" {
					t.Fatalf("%v %+v", err, a)
				}
				return
			}
			if e := expect(t, err, Ambiguous, c.code, true); e.StatusCode != c.status || e.Op != "unrestrict" {
				t.Fatalf("%+v", e)
			}
		})
	}
}

func TestListUnreadable(t *testing.T) {
	c, _ := dialTo(t, serve(t, answer(200, `{"value":[{"id":"a"},{"no":"id"}]}`)).URL)
	list, err := c.Page(t.Context(), UseLookup, Query{})
	if e := expect(t, err, Ambiguous, codeUnreadable, true); e.StatusCode != 200 || e.Op != "list" || len(list.Actions) != 1 {
		t.Fatalf("%v %+v", list, e)
	}
}

// TestErrorAnswers: the API's own code, message and target come through, and one grant is one exchange.
func TestErrorAnswers(t *testing.T) {
	var calls atomic.Int32
	text := `{"error":{"code":"ResourceNotFound","message":"Machine 1 was not found","target":"43f4cb08"}}`
	c, b := dialTo(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		answer(404, text)(w, r)
	}).URL)
	_, err := post(t.Context(), c)
	e := expect(t, err, NotFound, "ResourceNotFound", true)
	if e.Message != "Machine 1 was not found" || e.Target != "43f4cb08" || e.StatusCode != 404 || calls.Load() != 1 || len(b.uses) != 1 {
		t.Fatalf("%+v, %d calls, %v", e, calls.Load(), b.uses)
	}
	if want := "defender unrestrict: notFound: HTTP 404 ResourceNotFound: Machine 1 was not found (target 43f4cb08)"; e.Error() != want {
		t.Fatal(e.Error())
	}
}

// TestRedirects: the token goes nowhere else, whatever the answer says.
func TestRedirects(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") })
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		c, _ := dialTo(t, serve(t, answer(status, "", "Location", elsewhere.URL)).URL)
		_, err := post(t.Context(), c)
		expect(t, err, System, codeRedirect, true)
		_, err = c.Page(t.Context(), UseLookup, Query{})
		expect(t, err, System, codeRedirect, true)
	}
}

func TestNotDefender(t *testing.T) {
	for _, status := range []int{400, 403, 404, 407, 413} {
		c, _ := dialTo(t, serve(t, answer(status, "<html>blocked</html>", "Content-Type", "text/html")).URL)
		_, err := post(t.Context(), c)
		expect(t, err, System, codeNotDefender, true)
		if !c.Answered().IsZero() {
			t.Errorf("%d: taken for an answer of Defender's", status)
		}
	}
	c, _ := dialTo(t, serve(t, answer(101, "")).URL)
	_, err := post(t.Context(), c)
	expect(t, err, Ambiguous, "http101", true)
}

func TestGzip(t *testing.T) {
	zipped := func(w http.ResponseWriter, status int, text io.Reader) {
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		z := gzip.NewWriter(w)
		_, _ = io.Copy(z, text)
		_ = z.Close()
	}
	bomb := must(io.ReadAll(io.LimitReader(zeros{}, 1<<20)))
	c, _ := dialTo(t, serve(t, func(w http.ResponseWriter, _ *http.Request) { zipped(w, 201, strings.NewReader(created)) }).URL)
	if a, err := post(t.Context(), c); err != nil || string(a.Raw) != created {
		t.Fatalf("%v %s", err, a.Raw)
	}
	for status, code := range map[int]string{201: codeUnreadable, 400: codeNotDefender} { // without end; the limit stops it
		c, _ := dialTo(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(status)
			for z := gzip.NewWriter(w); r.Context().Err() == nil; {
				_, _ = z.Write(bomb)
				_ = z.Flush()
			}
		}).URL)
		_, err := post(t.Context(), c)
		if e := failed(t, err); e.Code != code {
			t.Errorf("%d: %v", status, e)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestDeflate: the encoding that Defender chooses for some clients is undone, in both forms that go by its name.
func TestDeflate(t *testing.T) {
	squeeze := func(zlibs bool, text string) string {
		var b bytes.Buffer
		var z io.WriteCloser = must(flate.NewWriter(&b, flate.BestSpeed))
		if zlibs {
			z = zlib.NewWriter(&b)
		}
		_, _ = io.WriteString(z, text)
		_ = z.Close()
		return b.String()
	}
	for _, zlibs := range []bool{true, false} {
		for name, c := range map[string]struct {
			status     int
			body, code string
		}{
			"an action": {201, created, ""}, "nothing": {201, "", codeNoAction}, "a bomb": {201, strings.Repeat("x", maxAction+1), codeUnreadable},
			"a refusal": {404, `{"error":{"code":"ResourceNotFound","message":"Machine was not found"}}`, "ResourceNotFound"},
		} {
			client, _ := dialTo(t, serve(t, answer(c.status, squeeze(zlibs, c.body), "Content-Encoding", "Deflate")).URL)
			a, err := post(t.Context(), client)
			if c.code == "" && (err != nil || string(a.Raw) != c.body) {
				t.Errorf("%s, zlib %t: %v %s", name, zlibs, err, a.Raw)
			} else if c.code != "" && failed(t, err).Code != c.code {
				t.Errorf("%s, zlib %t: %v", name, zlibs, err)
			}
		}
		cut := squeeze(zlibs, created)
		for _, body := range []string{cut[:len(cut)/2], cut[:1], "no deflate", created} {
			client, _ := dialTo(t, serve(t, answer(201, body, "Content-Encoding", "deflate")).URL)
			_, err := post(t.Context(), client)
			expect(t, err, Ambiguous, codeUnreadable, true)
		}
	}
}

// TestEmptyNotFound: a 404 without a body is Defender's own where others get its answers, for it has such ones too; else a proxy's.
func TestEmptyNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty, body := 404, ""
		c := clientOf(t, nearby, tokensOf(t, always("opaque-token")), &openBudget{}, piped(t, 0, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("$orderby") {
				answer(200, `{"value":[]}`)(w, r)
				return
			}
			answer(empty, body)(w, r)
		}))
		calls := map[string]func() error{
			"unrestrict": func() error { _, err := post(t.Context(), c); return err },
			"get":        func() error { _, err := c.Action(t.Context(), UseFollow, actionID); return err },
		}
		known := func() {
			if _, err := c.Page(t.Context(), UseLookup, Query{}); err != nil {
				t.Fatal(err)
			}
		}
		for name, call := range calls {
			time.Sleep(2 * lately)
			foreign := expect(t, call(), System, codeNotDefender, true)
			known()
			time.Sleep(lately - time.Second)
			e := expect(t, call(), NotFound, "http404", true)
			if !e.Empty || e.StatusCode != 404 {
				t.Errorf("%s: %+v", name, e)
			}
			if other := e.NotDefender(); !other.FromProxy() || other.Class != System || other.Message != foreign.Message || other.Reason != foreign.Reason || !e.Empty {
				t.Errorf("%s: %+v", name, other)
			}
			time.Sleep(time.Second)
			expect(t, call(), System, codeNotDefender, true)
		}
		known()
		for _, c := range []struct {
			status int
			body   string
		}{{404, "<html>"}, {404, "{}"}, {405, ""}, {403, ""}, {400, ""}, {410, ""}} {
			empty, body = c.status, c.body
			expect(t, calls["unrestrict"](), System, codeNotDefender, true)
		}
		empty, body = 404, `{"error":{"code":"ResourceNotFound"}}`
		if e := expect(t, calls["unrestrict"](), NotFound, "ResourceNotFound", true); e.Empty {
			t.Errorf("%+v", e)
		}
	})
}
