package defendersim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is an answer as a client gets it.
type seen struct {
	status int
	header http.Header
	body   string
}

func (a seen) json(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatalf("answer %d is no JSON object: %v\n%s", a.status, err, a.body)
	}
	return out
}

// failure returns error.code and error.message.
func (a seen) failure(t *testing.T) (code, message string) {
	t.Helper()
	inner, _ := a.json(t)["error"].(map[string]any)
	code, _ = inner["code"].(string)
	message, _ = inner["message"].(string)
	if inner == nil || message == "" {
		t.Fatalf("answer %d has no error in Defender's envelope: %s", a.status, a.body)
	}
	return code, message
}

func (a seen) want(t *testing.T, status int, code string) string {
	t.Helper()
	if a.status != status {
		t.Fatalf("answered %d, want %d: %s", a.status, status, a.body)
	}
	if code == "" {
		return ""
	}
	got, message := a.failure(t)
	if got != code {
		t.Fatalf("error code %q, want %q: %s", got, code, a.body)
	}
	return message
}

// ask sends one request straight to the handler, without a connection.
func ask(s *Server, token, method, target, body string) seen {
	r := httptest.NewRequest(method, strings.ReplaceAll(target, " ", "%20"), strings.NewReader(body))
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return seen{w.Code, w.Header(), w.Body.String()}
}

// user is a client with a token.
type user struct {
	t     *testing.T
	s     *Server
	token string
}

func newUser(t *testing.T, cfg Config, roles ...string) user {
	t.Helper()
	s := New(cfg)
	t.Cleanup(s.Close)
	return user{t, s, s.IssueToken(24*365*3600e9, roles...)}
}

func (u user) get(target string) seen { return ask(u.s, u.token, "GET", target, "") }

func (u user) post(target, body string) seen { return ask(u.s, u.token, "POST", target, body) }

// unrestrict calls for machine n.
func (u user) unrestrict(n int) seen {
	return u.post("/api/machines/"+machineID(n)+"/unrestrictCodeExecution", `{"Comment":"release"}`)
}

// list returns the values of a list that must be answered 200.
func (u user) list(query string) []map[string]any {
	u.t.Helper()
	a := u.get("/api/machineactions" + query)
	a.want(u.t, 200, "")
	var page struct{ Value []map[string]any }
	if err := json.Unmarshal([]byte(a.body), &page); err != nil {
		u.t.Fatal(err)
	}
	return page.Value
}

func machineID(n int) string { return fmt.Sprintf("%040x", n) }
