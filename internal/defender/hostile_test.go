package defender

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// flood answers each request with head, and then with chunk for as long as anybody reads; sent counts the bytes that
// could be written.
func flood(t *testing.T, head, chunk string) (url string, sent *atomic.Int64) {
	sent = new(atomic.Int64)
	return listen(t, func(conn net.Conn) {
		if !whole(bufio.NewReader(conn)) {
			return
		}
		n, err := io.WriteString(conn, head)
		for err == nil {
			sent.Add(int64(n))
			n, err = io.WriteString(conn, chunk)
		}
	}), sent
}

// narrow keeps the kernel from taking tens of megabytes on the client's behalf.
func narrow() *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(1 << 20)
		}
		return conn, err
	}}
}

// TestFloods: an answer without end is cut off where it exceeds what an answer may have, long before its time is over.
func TestFloods(t *testing.T) {
	const inSockets = 16 << 20 // what may lie in buffers on the way, generously
	pad := strings.Repeat("x", 32<<10)
	for name, c := range map[string]struct {
		head, chunk string
		limit       int64
		code        string // of a POST
	}{
		"headers":             {"HTTP/1.1 201 Created\r\n", "X-Pad: " + pad + "\r\n", maxError, codeCut},
		"one header":          {"HTTP/1.1 201 Created\r\nX-Pad: ", pad, maxError, codeCut},
		"a status line":       {"HTTP/1.1 201 ", pad, maxError, codeCut},
		"early hints":         {"", "HTTP/1.1 103 Early Hints\r\nLink: " + pad + "\r\n\r\n", maxError, codeCut},
		"empty early hints":   {"", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 500), maxError, codeCut},
		"continues":           {"", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 500), maxError, codeCut},
		"a body":              {"HTTP/1.1 201 Created\r\n\r\n", pad, maxList, codeUnreadable},
		"chunks":              {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", "8000\r\n" + pad + "\r\n", maxList, codeUnreadable},
		"a refusal":           {"HTTP/1.1 400 Bad Request\r\n\r\n", pad, maxError, codeNotDefender},
		"chunk extensions":    {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1;", pad, maxError, codeUnreadable},
		"trailers":            {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nTrailer: X-Pad\r\n\r\n0\r\n", "X-Pad: " + pad + "\r\n", maxError, codeUnreadable},
		"nothing but a comma": {"HTTP/1.1 200 OK\r\n\r\n" + `{"value":[`, strings.Repeat(",", 32<<10), maxList, codeUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			for op, call := range calls {
				url, sent := flood(t, c.head, c.chunk)
				client, _ := dialTo(t, url, func(cfg *Config) { cfg.Timeout, cfg.Transport = time.Hour, narrow() })
				e := failed(t, call(t.Context(), client))
				if op == opUnrestrict && e.Code != c.code {
					t.Errorf("%s: %v", op, e)
				}
				if n := sent.Load(); n > c.limit+inSockets {
					t.Errorf("%s: %d bytes were taken, more than %d", op, n, c.limit)
				}
			}
		})
	}
}

// TestDrips: an answer that comes a byte at a time has DEFENDER_TIMEOUT as a whole, not anew for each byte.
func TestDrips(t *testing.T) {
	for name, head := range map[string]string{
		"header": "HTTP/1.1 201 Created\r\nX-Pad: ", "body": "HTTP/1.1 201 Created\r\nContent-Length: 100000000\r\n\r\n", "refusal": "HTTP/1.1 503 Busy\r\nContent-Length: 100000000\r\n\r\n",
	} {
		url := listen(t, func(conn net.Conn) {
			if !whole(bufio.NewReader(conn)) {
				return
			}
			_, err := io.WriteString(conn, head)
			for tick := time.NewTicker(time.Millisecond); err == nil; <-tick.C {
				_, err = io.WriteString(conn, "x")
			}
		})
		client, _ := dialTo(t, url, func(cfg *Config) { cfg.Timeout = 100 * time.Millisecond })
		for _, call := range calls {
			if e := failed(t, call(t.Context(), client)); e.Class != Ambiguous || !e.Sent {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
}

// TestStuffedAnswer: what comes behind an answer is nobody's: it is not taken for the answer to the next call.
func TestStuffedAnswer(t *testing.T) {
	reply := func(body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	var requests atomic.Int32
	url := listen(t, func(conn net.Conn) {
		for r := bufio.NewReader(conn); whole(r); {
			if requests.Add(1) == 1 {
				_, _ = io.WriteString(conn, reply(`{"value":[{"id":"first"}]}`)+reply(`{"value":[{"id":"stuffed"}]}`))
				continue
			}
			_, _ = io.WriteString(conn, reply(`{"value":[{"id":"second"}]}`))
		}
	})
	client, _ := dialTo(t, url)
	for _, want := range []string{"first", "second"} {
		list, err := client.Page(t.Context(), UseLookup, Query{})
		if err != nil {
			if want == "second" { // it was noticed while the call was under way
				continue
			}
			t.Fatal(err)
		}
		if len(list.Actions) != 1 || list.Actions[0].ID != want {
			t.Errorf("got %+v, want %s", list, want)
		}
	}
}

// TestTail: an answer with something behind its JSON is none.
func TestTail(t *testing.T) {
	for _, tail := range []string{"x", "{}", created, "\x00", "]"} {
		c, _ := dialTo(t, serve(t, answer(201, created+tail)).URL)
		_, err := post(t.Context(), c)
		expect(t, err, Ambiguous, codeUnreadable, true)
	}
}

// TestNextLink: a link in a list leads nowhere, least of all with the token.
func TestNextLink(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the link was followed") })
	here := ""
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("$skiptoken") != "" {
			t.Error("the link was followed")
		}
		answer(200, `{"@odata.context":"`+elsewhere.URL+`","@odata.nextLink":"`+here+`","value":[{"id":"a","@odata.id":"`+elsewhere.URL+`"}]}`)(w, r)
	})
	for _, link := range []string{elsewhere.URL + "/api/machineactions?$skip=1", srv.URL + "/api/machineactions?$skiptoken=x", "//" + strings.TrimPrefix(elsewhere.URL, "http://"), "file:///etc/passwd"} {
		here = link
		c, b := dialTo(t, srv.URL)
		page, err := c.Page(t.Context(), UseFollow, Query{})
		if err != nil || !page.More || len(page.Actions) != 1 || len(b.uses) != 1 {
			t.Errorf("%s: %+v %v", link, page, err)
		}
	}
}

// impostor plays the sign-in endpoint over plain connections: it answers a request for a token with whatever reply makes
// of the form that it got, and everything else with what Entra would.
func impostor(t *testing.T, reply func(form string, conn net.Conn)) *azureCredential {
	t.Helper()
	url := listen(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			form, _ := io.ReadAll(req.Body)
			if strings.HasSuffix(req.URL.Path, "/token") {
				reply(string(form), conn)
				return
			}
			base := "https://" + req.Host + "/" + tenant
			body := fmt.Sprintf(`{"issuer":"%[1]s/v2.0","authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s/oauth2/v2.0/token"}`, base)
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
	return impostorAt(t, strings.TrimPrefix(url, "http://"), "client-secret")
}

// plainly sends what is meant for https as it is: the impostor has broken into TLS.
type plainly struct{ address string }

func (p plainly) Do(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = "http", p.address
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return client.Do(req)
}

const assertion = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ3b3JrZXIifQ.federated-signature"

func impostorAt(t *testing.T, address, mode string) *azureCredential {
	t.Helper()
	env := map[string]string{
		"AZURE_AUTHORITY_HOST": "https://" + address + "/", "AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": client,
		"AZURE_CLIENT_SECRET": appSecret, "AZURE_FEDERATED_TOKEN_FILE": file(t, assertion),
	}
	source := must(NewCredential(CredentialConfig{
		Mode: mode, Cloud: "commercial", DisableInstanceDiscovery: true, Getenv: func(k string) string { return env[k] }, Transport: plainly{address},
	})).(*azureCredential)
	source.options.Retry.MaxRetries = -1
	source.held = nil
	return source
}

// TestSignInEchoes: a sign-in endpoint that repeats what it was sent, as HTTP or not, in any spelling, gets none of it into an error.
func TestSignInEchoes(t *testing.T) {
	for name, reply := range map[string]string{
		"no HTTP": "%s\r\n\r\n", "status line": "HTTP/1.1 %s\r\n\r\n", "status code": "HTTP/1.1 2%s OK\r\n\r\n", "header": "HTTP/1.1 200 OK\r\n%s\r\n\r\n", "header name": "HTTP/1.1 200 OK\r\n%s: x\r\n\r\n",
		"length": "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n", "encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n", "location": "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://127.0.0.1/%s\r\n\r\n",
		"body": "HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n{\"error\":\"%s\",\"error_description\":\"%[1]s\"}", "taken": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"access_token\":7,\"x\":\"%s\"}", "in an id": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"access_token\":\"a\",\"id_token\":\"%s\",\"expires_in\":3600}",
	} {
		for _, mode := range []string{"client-secret", "workload-identity"} {
			for spelling, spell := range spellings {
				t.Run(name+" "+mode+" "+spelling, func(t *testing.T) {
					source := impostor(t, func(form string, conn net.Conn) {
						for _, sent := range []string{appSecret, assertion} {
							if values, err := url.ParseQuery(form); err == nil && (values.Get("client_secret") == sent || values.Get("client_assertion") == sent) {
								_, _ = fmt.Fprintf(conn, reply, spell(sent))
							}
						}
					})
					source.cfg.Mode = mode
					_, err := source.Token(t.Context(), apiScope, false)
					if err == nil {
						return // it gave a token: nothing to say of it
					}
					noSecret(t, err, appSecret, assertion)
				})
			}
		}
	}
}

// TestSignInFloods: nor does it fill the memory.
func TestSignInFloods(t *testing.T) {
	for name, c := range map[string][2]string{
		"body":   {"HTTP/1.1 200 OK\r\n\r\n{\"x\":\"", strings.Repeat("x", 32<<10)},
		"header": {"HTTP/1.1 200 OK\r\n", "X-Pad: " + strings.Repeat("x", 32<<10) + "\r\n"},
	} {
		var sent atomic.Int64
		source := impostor(t, func(_ string, conn net.Conn) {
			n, err := io.WriteString(conn, c[0])
			for err == nil {
				sent.Add(int64(n))
				n, err = io.WriteString(conn, c[1])
			}
		})
		if _, err := source.Token(t.Context(), apiScope, false); err == nil {
			t.Errorf("%s: a token came of it", name)
		}
		if n := sent.Load(); n > 32<<20 {
			t.Errorf("%s: %d bytes were taken", name, n)
		}
	}
}
