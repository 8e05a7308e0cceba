package defendersim

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// serveAuthority is Entra's part: /{tenant}/v2.0/.well-known/openid-configuration
// and /{tenant}/oauth2[/v2.0]/token. Azure's SDK asks for both over TLS, with
// this server as AZURE_AUTHORITY_HOST and instance discovery disabled.
func (s *Server) serveAuthority(w http.ResponseWriter, r *http.Request) {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch rest {
	case "v2.0/.well-known/openid-configuration", ".well-known/openid-configuration":
		write(w, s.openID(tenant, baseURL(r)+"/"+tenant), "")
	case "oauth2/v2.0/token", "oauth2/token":
		s.serveToken(w, r, tenant)
	default:
		write(w, failure(http.StatusNotFound, "NotFound", "No HTTP resource was found that matches the request URI"), "")
	}
}

// openID: the SDK wants all three endpoints, and an issuer of the same host and port.
func (s *Server) openID(tenant, base string) reply {
	if s.cfg.TenantID != "" && !strings.EqualFold(tenant, s.cfg.TenantID) {
		return unknownTenant(tenant)
	}
	return jsonReply(http.StatusOK, map[string]any{
		"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"response_types_supported":              []string{"token"}, "subject_types_supported": []string{"pairwise"},
	})
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request, tenant string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	_ = r.ParseForm() // what can't be read is missing below
	q := &request{op: operation{name: "token", success: http.StatusOK}, raw: r}
	s.gate.Lock()
	s.gate.tokenRequests++
	f := s.gate.pick(q)
	s.gate.Unlock()
	rep, ok := s.strike(f, q, 0, func() reply { return s.token(r, tenant) })
	if !ok {
		panic(http.ErrAbortHandler)
	}
	write(w, rep, f.Cut)
}

// TokenRequests counts the requests to the token endpoint.
func (s *Server) TokenRequests() int {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.gate.tokenRequests
}

// token answers the client credentials grant, with a secret or an assertion.
func (s *Server) token(r *http.Request, tenant string) reply {
	form, want := r.PostForm, s.cfg
	secret, assertion := form.Get("client_secret"), form.Get("client_assertion")
	resource := form.Get("resource") // the v1 endpoint's parameter
	for scope := range strings.FieldsSeq(form.Get("scope")) {
		if name, found := strings.CutSuffix(scope, "/.default"); found {
			resource = name
		}
	}
	switch {
	case want.TenantID != "" && !strings.EqualFold(tenant, want.TenantID):
		return unknownTenant(tenant)
	case form.Get("grant_type") != "client_credentials":
		return oauthFailure(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '"+form.Get("grant_type")+"'.")
	case form.Get("client_id") == "":
		return oauthFailure(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	case want.ClientID != "" && !strings.EqualFold(form.Get("client_id"), want.ClientID):
		return oauthFailure(400, "unauthorized_client", 700016, "Application with identifier '"+form.Get("client_id")+"' was not found in the directory.")
	case secret == "" && assertion == "":
		return oauthFailure(401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case assertion == "" && want.ClientSecret != "" && secret != want.ClientSecret:
		return oauthFailure(401, "invalid_client", 7000215, "Invalid client secret provided.")
	case assertion != "" && (form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || strings.Count(assertion, ".") != 2):
		return oauthFailure(401, "invalid_client", 50027, "JWT token is invalid or malformed.")
	case resource == "":
		return oauthFailure(400, "invalid_scope", 1002012, "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).")
	}
	life := want.TokenLifetime
	return jsonReply(http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": int(life.Seconds()), "ext_expires_in": 0,
		"access_token": s.issue(life, resource, tenant, form.Get("client_id"), want.Roles),
	})
}

func unknownTenant(tenant string) reply {
	return oauthFailure(400, "invalid_request", 90002, "Tenant '"+tenant+"' not found.")
}

// oauthFailure is an error of the authority: its `error` is a string, where
// Defender's is an object.
func oauthFailure(status int, name string, number int, description string) reply {
	trace, correlation := newGUID(rand.Uint64), newGUID(rand.Uint64)
	at := time.Now().UTC().Format("2006-01-02 15:04:05Z")
	return jsonReply(status, map[string]any{
		"error": name, "error_codes": []int{number}, "timestamp": at, "trace_id": trace, "correlation_id": correlation,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", number, description, trace, correlation, at),
	})
}
