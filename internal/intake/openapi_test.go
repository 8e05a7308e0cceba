package intake_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"example.com/unrestrict-worker/docs"
)

// document is docs/openapi.yaml, against which every answer of the tests is held.
type document struct{ router routers.Router }

func openDocument(t testing.TB) *document {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, u *url.URL) ([]byte, error) { return docs.Messages.ReadFile(u.Path) }
	text, err := docs.Messages.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := loader.LoadFromDataWithPath(text, &url.URL{Path: "openapi.yaml"})
	if err == nil {
		err = doc.Validate(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &document{router}
}

// fits fails the test if an answer is not as the document says. What it has no operation for is a problem of its own.
func (d *document) fits(t testing.TB, r *http.Request, got *http.Response, body []byte) {
	t.Helper()
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		if kind := got.Header.Get("Content-Type"); got.StatusCode < 400 || kind != "application/problem+json" {
			t.Errorf("%s %s, which the document does not have, is answered %d %s", r.Method, r.URL, got.StatusCode, kind)
		}
		return
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 got.StatusCode, Header: got.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	in.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(t.Context(), in); err != nil {
		t.Errorf("%s %s is answered otherwise than the document says: %d %s: %v", r.Method, r.URL, got.StatusCode, body, err)
	}
}

// TestProblemsHaveTheirPlaceInTheRunbook: the type of a problem leads there.
func TestProblemsHaveTheirPlaceInTheRunbook(t *testing.T) {
	text, err := docs.Messages.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "enum: [malformed,")
	list, _, _ = strings.Cut("malformed,"+list, "]")
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	for code := range strings.SplitSeq(list, ",") {
		if code = strings.TrimSpace(code); !strings.Contains(string(page), `<a id="intake-`+code+`"></a>`) {
			t.Errorf("docs/runbook.md has no place for %s", code)
		}
	}
}
