package defendersim

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// serveAuthority is Entra's part: discovery, keys and the token endpoints, v1 and v2. Microsoft's libraries call them
// over TLS, with this server as their authority and instance discovery disabled, or under Entra's own name.
func (s *Server) serveAuthority(w http.ResponseWriter, r *http.Request) {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	base := baseURL(r) + "/" + tenant
	switch rest {
	case "discovery/instance":
		write(w, instances(r), "")
	case "v2.0/.well-known/openid-configuration":
		write(w, s.openID(tenant, base, base+"/v2.0", "/v2.0"), "")
	case ".well-known/openid-configuration":
		write(w, s.openID(tenant, base, "https://sts.windows.net/"+tenant+"/", ""), "")
	case "discovery/v2.0/keys", "discovery/keys":
		write(w, s.keys(), "")
	case "oauth2/v2.0/token":
		s.serveToken(w, r, tenant, 2)
	case "oauth2/token":
		s.serveToken(w, r, tenant, 1)
	default:
		write(w, failure(http.StatusNotFound, "NotFound", "No HTTP resource was found that matches the request URI"), "")
	}
}

// authorityReply is JSON as Entra sends it, without Defender's content type.
func authorityReply(status int, v any) reply {
	rep := jsonReply(status, v)
	rep.set("Content-Type", "application/json; charset=utf-8")
	rep.set("Cache-Control", "no-store, no-cache")
	return rep
}

// openID has the members of the live document. Microsoft's libraries require issuer, both endpoints and jwks_uri, and a
// v2 issuer of the same host and port.
func (s *Server) openID(tenant, base, issuer, version string) reply {
	if !s.servesTenant(tenant) {
		return unknownTenant(tenant)
	}
	return authorityReply(http.StatusOK, map[string]any{
		"issuer": issuer, "authorization_endpoint": base + "/oauth2" + version + "/authorize", "token_endpoint": base + "/oauth2" + version + "/token",
		"device_authorization_endpoint": base + "/oauth2" + version + "/devicecode", "end_session_endpoint": base + "/oauth2" + version + "/logout",
		"jwks_uri": base + "/discovery" + version + "/keys", "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"subject_types_supported":               []string{"pairwise"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		"request_uri_parameter_supported": false, "http_logout_supported": true, "frontchannel_logout_supported": true,
		"claims_supported": []string{
			"sub", "iss", "cloud_instance_name", "cloud_instance_host_name", "cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat",
			"auth_time", "acr", "nonce", "preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email",
		},
		"tenant_region_scope": "NA", "cloud_instance_name": "microsoftonline.com", "cloud_graph_host_name": "graph.windows.net",
		"msgraph_host": "graph.microsoft.com", "rbac_url": "https://pas.windows.net",
	})
}

// servesTenant reports whether the authority serves a tenant; without a tenant of its own it serves any.
func (s *Server) servesTenant(tenant string) bool {
	own := s.conf().TenantID
	return own == "" || strings.EqualFold(tenant, own)
}

// instances answers that the requested authority is this one, and refuses any other.
func instances(r *http.Request) reply {
	asked, err := url.Parse(r.URL.Query().Get("authorization_endpoint"))
	if err != nil || !strings.EqualFold(asked.Host, r.Host) {
		return oauthFailure(400, "invalid_instance", 50049, "Unknown or invalid instance.")
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(asked.Path, "/"), "/")
	return authorityReply(http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": baseURL(r) + "/" + tenant + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
		"metadata": []any{map[string]any{"preferred_network": r.Host, "preferred_cache": r.Host, "aliases": []string{r.Host}}},
	})
}

// keys is the public half of the key that signs tokens; without such a key the list is empty.
func (s *Server) keys() reply {
	keys := []any{}
	if key := s.conf().SigningKey; key != nil {
		enc := base64.RawURLEncoding
		keys = append(keys, map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID(key), "x5t": keyID(key),
			"n": enc.EncodeToString(key.N.Bytes()), "e": enc.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		})
	}
	return authorityReply(http.StatusOK, map[string]any{"keys": keys})
}

func unknownTenant(tenant string) reply {
	return oauthFailure(400, "invalid_request", 90002, "Tenant '"+tenant+"' not found.")
}

func missing(parameter string) reply {
	return oauthFailure(400, "invalid_request", 900144, "The request body must contain the following parameter: '"+parameter+"'.")
}

// oauthFailure is an error of the authority: its `error` is a string, where
// Defender's is an object.
func oauthFailure(status int, name string, number int, description string) reply {
	trace, correlation := newGUID(rand.Uint64), newGUID(rand.Uint64)
	at := time.Now().UTC().Format("2006-01-02 15:04:05Z")
	return authorityReply(status, map[string]any{
		"error": name, "error_codes": []int{number}, "timestamp": at, "trace_id": trace, "correlation_id": correlation,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", number, description, trace, correlation, at),
		"error_uri":         fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", number),
	})
}
