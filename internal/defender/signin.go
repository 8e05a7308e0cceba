package defender

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	entraCode = regexp.MustCompile(`AADSTS(\d{1,10})`)
	noAnswer  = regexp.MustCompile(`server response error:\s+`) // what follows is the transport's error
)

// oauthCodes are the errors of IANA's registry (OAuth Extensions Error) and of RFC 6749 that a token endpoint may answer. No
// other word of such an answer is shown.
var oauthCodes = strings.Fields(`invalid_request invalid_client invalid_grant unauthorized_client unsupported_grant_type invalid_scope
	access_denied unsupported_response_type server_error temporarily_unavailable unsupported_token_type invalid_token insufficient_scope
	authorization_pending slow_down expired_token invalid_target interaction_required login_required account_selection_required
	consent_required invalid_request_uri invalid_request_object request_not_supported request_uri_not_supported registration_not_supported
	invalid_dpop_proof use_dpop_nonce insufficient_user_authentication`)

// fixes are the remedies for Entra's most common refusals, by AADSTS code.
var fixes = map[string]string{
	"50034":   "the account is unknown in the tenant",
	"53003":   "a conditional access policy blocks the sign-in",
	"70021":   "no federated credential of the app matches the workload's token: check its issuer and subject",
	"90002":   "the tenant is unknown: check AZURE_TENANT_ID and DEFENDER_CLOUD",
	"500011":  "the API's resource is unknown in the tenant: check DEFENDER_SCOPE, and that the tenant has Defender for Endpoint",
	"700016":  "the app is unknown in the tenant: check AZURE_CLIENT_ID and AZURE_TENANT_ID",
	"700024":  "the client assertion is outside its time: check this machine's clock and the federated token",
	"700027":  "the certificate is not one of the app's: upload it or correct AZURE_CLIENT_CERTIFICATE_PATH",
	"7000215": "the client secret is wrong: set AZURE_CLIENT_SECRET to the secret's value, not its id",
	"7000222": "the client secret has expired: make a new one",
}

// signInRefused describes a token endpoint's answer by its status and codes alone. It leaves out the description, which
// repeats parts of the request, the secret among them. host, "" or with a space before it, comes from us and not from
// the answer: the request went there.
func signInRefused(host string, status int, content []byte) string {
	var body struct {
		Error       any `json:"error"`
		Description any `json:"error_description"`
	}
	_ = json.Unmarshal(content, &body)
	out := fmt.Sprintf("the sign-in endpoint%s answers HTTP %d", host, status)
	if code, ok := body.Error.(string); ok && slices.Contains(oauthCodes, code) {
		out += " " + code
	}
	description, _ := body.Description.(string)
	if m := entraCode.FindStringSubmatch(description); m != nil {
		out += " " + m[0]
		if fix := fixes[m[1]]; fix != "" {
			out += ": " + fix
		}
	}
	return out
}

// firstLines returns the first line of an error, or of each error in a chain's; what follows may be text of an answer.
func firstLines(s string) string {
	s = noAnswer.ReplaceAllString(s, "")
	first, rest, _ := strings.Cut(s, "\n")
	out := []string{strings.TrimSpace(first)}
	if strings.HasPrefix(rest, "Attempted credentials:") {
		for line := range strings.SplitSeq(rest, "\n") {
			if strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "\t\t") {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(out, "; ")
}
