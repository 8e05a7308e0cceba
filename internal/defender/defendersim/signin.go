package defendersim

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// serveToken answers a request to a token endpoint, with the faults applied.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request, tenant string, version int) {
	form := readForm(r)
	q := &request{op: operation{name: "token", success: http.StatusOK}, raw: r}
	s.gate.Lock()
	s.gate.tokenRequests++
	f := s.gate.pick(q)
	s.gate.Unlock()
	rep, ok := s.applyFault(f, q, 0, func() reply { return s.token(r, form, tenant, version) })
	if !ok {
		panic(http.ErrAbortHandler)
	}
	write(w, rep, f.Cut)
}

// readForm reads the body as a form unless the client declares another type: one connector that ships declares none
// ([client]). A body that can't be read counts as an empty form.
func readForm(r *http.Request) url.Values {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "" && kind != "application/x-www-form-urlencoded" {
		return nil
	}
	form, _ := url.ParseQuery(string(body))
	return form
}

// TokenRequests counts the requests to the token endpoint.
func (s *Server) TokenRequests() int {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.gate.tokenRequests
}

// registration finds the app and its secret; without a client id of its own the server accepts every app.
func (s *Server) registration(clientID string) (app Registration, known bool) {
	c := s.conf()
	for _, other := range c.Others {
		if strings.EqualFold(clientID, other.ClientID) {
			return other, true
		}
	}
	return Registration{clientID, c.ClientSecret, c.Roles}, c.ClientID == "" || strings.EqualFold(clientID, c.ClientID)
}

// token answers the client credentials grant, with a secret or an assertion.
func (s *Server) token(r *http.Request, form url.Values, tenant string, version int) reply {
	if r.Method != http.MethodPost && !s.conf().LenientSignIn {
		return oauthFailure(400, "invalid_request", 900561, "The endpoint only accepts POST requests. Received a "+r.Method+" request.")
	}
	clientID, secret, assertion := form.Get("client_id"), form.Get("client_secret"), form.Get("client_assertion")
	if id, password, basic := r.BasicAuth(); basic {
		clientID, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(password)
	}
	app, known := s.registration(clientID)
	switch {
	case !s.servesTenant(tenant):
		return unknownTenant(tenant)
	case form.Get("grant_type") == "":
		return missing("grant_type")
	case form.Get("grant_type") != "client_credentials":
		return oauthFailure(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '"+form.Get("grant_type")+"'.")
	case clientID == "":
		return missing("client_id")
	case !known:
		return oauthFailure(400, "unauthorized_client", 700016, "Application with identifier '"+clientID+"' was not found in the directory.")
	case secret == "" && assertion == "":
		return oauthFailure(401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case assertion == "" && app.ClientSecret != "" && secret != app.ClientSecret:
		return oauthFailure(401, "invalid_client", 7000215, "Invalid client secret provided.")
	case assertion != "" && (form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || strings.Count(assertion, ".") != 2):
		return oauthFailure(401, "invalid_client", 50027, "JWT token is invalid or malformed.")
	}
	resource, bad := audience(form, version)
	if bad != nil {
		return *bad
	}
	life := s.conf().TokenLifetime
	token, seconds, now := s.issue(life, resource, tenant, clientID, app.Roles), int(life.Seconds()), time.Now()
	if version == 1 { // numbers as text
		return authorityReply(http.StatusOK, map[string]any{
			"token_type": "Bearer", "expires_in": strconv.Itoa(seconds), "ext_expires_in": strconv.Itoa(seconds), "resource": resource,
			"not_before": strconv.FormatInt(now.Unix(), 10), "expires_on": strconv.FormatInt(now.Add(life).Unix(), 10), "access_token": token,
		})
	}
	return authorityReply(http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token})
}

// audience is the resource that the token is for: v1 names it by resource, v2 by scope, and neither accepts the other's
// parameter.
func audience(form url.Values, version int) (string, *reply) {
	refuse := func(rep reply) (string, *reply) { return "", &rep }
	resource, scope := form.Get("resource"), form.Get("scope")
	switch {
	case version == 1 && resource == "":
		return refuse(missing("resource"))
	case version == 1:
		return resource, nil
	case scope == "" && resource != "":
		return refuse(oauthFailure(400, "invalid_request", 901002, "The 'resource' request parameter is not supported."))
	case scope == "":
		return refuse(missing("scope"))
	}
	for word := range strings.FieldsSeq(scope) {
		if name, found := strings.CutSuffix(word, "/.default"); found && name != "" {
			return name, nil
		}
	}
	return refuse(oauthFailure(400, "invalid_scope", 1002012, "The provided value for scope "+scope+" is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."))
}
