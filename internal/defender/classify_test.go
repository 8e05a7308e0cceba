package defender

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bodies are the forms an answer's body takes, and whether it is Defender's.
var bodies = map[string]struct {
	text     string
	defender bool
}{
	"code and message": {`{"error":{"code":"Some","message":"text","target":"t-1"}}`, true},
	"code alone":       {`{"error":{"code":"Some"}}`, true},
	"message alone":    {`{"error":{"message":"text"}}`, true},
	"odata":            {`{"error":{"code":"","message":"The query specified in the URI is not valid.","details":[]}}`, true},
	"odd target":       {`{"error":{"code":"Some","target":7}}`, true},
	"oauth":            {`{"error":"invalid_client","error_description":"AADSTS7000215"}`, false},
	"empty error":      {`{"error":{}}`, false},
	"wrong types":      {`{"error":{"code":1,"message":null}}`, false},
	"array":            {`[{"error":{"code":"Some"}}]`, false},
	"html":             {`<html><body>error</body></html>`, false},
	"cut":              {`{"error":{"code":"Some"`, false},
	"none":             {``, false},
}

// TestClassify runs the table over every status, form of body, operation and history of the token.
func TestClassify(t *testing.T) {
	for form, body := range bodies {
		env := parseEnvelope([]byte(body.text), nil)
		if (env != nil) != body.defender {
			t.Errorf("%s: taken for Defender's: %t", form, env != nil)
		}
		for status := 100; status <= 599; status++ {
			for _, op := range []string{opUnrestrict, opList, opGet} {
				for history := range 4 {
					fresh, accepted := history&1 == 0, history&2 == 0
					e := Classify(Answer{Op: op, StatusCode: status, Envelope: env, TokenFresh: fresh, TokenAccepted: accepted})
					want := classOf(status, op, body.defender, fresh, accepted)
					if e.Class != want || e.Code == "" || e.StatusCode != status || e.Op != op || !e.Sent || (e.Class == System) != (e.Reason != "") {
						t.Fatalf("%d, %s, %s, fresh %t, accepted %t: got %+v, want %s", status, form, op, fresh, accepted, e, want)
					}
				}
			}
		}
	}
}

// classOf is the table as ARCHITECTURE.md has it, for codes that mean nothing special.
func classOf(status int, op string, defender, fresh, accepted bool) Class {
	switch {
	case status == 429:
		return Throttled
	case status == 408 || status < 300 || status >= 500:
		return Ambiguous
	case status < 400:
		return System
	case status == 401 && !fresh:
		return Reauthenticate
	case status == 401 || !defender:
		return System
	case status == 403 && (op != opUnrestrict || !accepted):
		return System
	case status == 404:
		return NotFound
	}
	return Rejected
}

// TestClassifyKnown: bodies seen live or documented (common-errors.md and reports on it).
func TestClassifyKnown(t *testing.T) {
	type want struct {
		Class Class
		Code  string
	}
	for _, c := range []struct {
		status        int
		code, message string
		op            string
		accepted      bool
		want          want
	}{
		{400, "BadRequest", "No.", opUnrestrict, true, want{Rejected, "BadRequest"}},
		{400, "ODataError", "", opList, true, want{Rejected, "ODataError"}},
		{400, "", "The query specified in the URI is not valid.", opList, true, want{Rejected, "http400"}},
		{400, "InvalidInput", "", opUnrestrict, true, want{Rejected, "InvalidInput"}},
		{400, "InvalidRequestBody", "Request body is incorrect", opUnrestrict, true, want{Rejected, "InvalidRequestBody"}},
		{400, "InvalidHashValue", "", opUnrestrict, true, want{Rejected, "InvalidHashValue"}},
		{400, "InvalidDomainName", "", opUnrestrict, true, want{Rejected, "InvalidDomainName"}},
		{400, "InvalidIpAddress", "", opUnrestrict, true, want{Rejected, "InvalidIpAddress"}},
		{400, "InvalidUrl", "", opUnrestrict, true, want{Rejected, "InvalidUrl"}},
		{400, "MaximumBatchSizeExceeded", "", opUnrestrict, true, want{Rejected, "MaximumBatchSizeExceeded"}},
		{400, "MissingRequiredParameter", "Parameter Comment is missing.", opUnrestrict, true, want{Rejected, "MissingRequiredParameter"}},
		{400, "OsPlatformNotSupported", "OS Platform Linux isn't supported for this action.", opUnrestrict, true, want{Rejected, "OsPlatformNotSupported"}},
		{400, "ClientVersionNotSupported", "x is supported on client version 1 and above.", opUnrestrict, true, want{Rejected, "ClientVersionNotSupported"}},
		{400, "ActiveRequestAlreadyExists", "Action is already in progress", opUnrestrict, true, want{Conflict, "ActiveRequestAlreadyExists"}},
		{400, "ActiveRequestAlreadyExists", "other words", opUnrestrict, false, want{Conflict, "ActiveRequestAlreadyExists"}},
		{400, "BadRequest", "ACTION IS ALREADY IN PROGRESS", opUnrestrict, true, want{Conflict, "BadRequest"}},
		{400, "BadRequest", "Action is already in progress", opList, true, want{Rejected, "BadRequest"}},
		{401, "Unauthorized", "Invalid or expired authorization header.", opUnrestrict, true, want{Reauthenticate, "Unauthorized"}},
		{403, "Forbidden", "Missing application roles. API required roles: Machine.Read.All,Machine.ReadWrite.All, application roles: Machine.Isolate.", opUnrestrict, true, want{System, "Forbidden"}},
		{403, "Forbidden", "The application does not have any of the required application permissions (Machine.Read.All) to access the resource.", opUnrestrict, true, want{System, "Forbidden"}},
		{403, "Forbidden", "The required scopes are\nmissing", opUnrestrict, true, want{System, "Forbidden"}},
		{403, "Forbidden", "Access is denied.", opUnrestrict, true, want{Rejected, "Forbidden"}},
		{403, "Forbidden", "Access is denied.", opUnrestrict, false, want{System, "Forbidden"}},
		{403, "Forbidden", "Access is denied.", opGet, true, want{System, "Forbidden"}},
		{403, "DisallowedOperation", "unrestrict: the machine is under control of another", opUnrestrict, true, want{Rejected, "DisallowedOperation"}},
		{403, "DisabledFeature", "Tenant feature isn't enabled.", opUnrestrict, true, want{System, "DisabledFeature"}},
		{400, "DisabledFeature", "Tenant feature isn't enabled.", opUnrestrict, true, want{System, "DisabledFeature"}},
		{404, "NotFound", "", opUnrestrict, true, want{NotFound, "NotFound"}},
		{404, "ResourceNotFound", "Machine 123123123 was not found", opUnrestrict, true, want{NotFound, "ResourceNotFound"}},
		{404, "", "gone", opGet, true, want{NotFound, "http404"}},
		{429, "TooManyRequests", "", opUnrestrict, true, want{Throttled, "TooManyRequests"}},
		{429, "429", "API calls quota exceeded! You can send requests again in 8 seconds.", opUnrestrict, true, want{Throttled, "429"}},
		{500, "InternalServerError", "", opUnrestrict, true, want{Ambiguous, "InternalServerError"}},
		{503, "DisabledFeature", "", opUnrestrict, true, want{Ambiguous, "DisabledFeature"}},
	} {
		a := Answer{Op: c.op, StatusCode: c.status, Envelope: &Envelope{Code: c.code, Message: c.message, Target: "t"}, TokenAccepted: c.accepted}
		e := Classify(a)
		if diff := cmp.Diff(c.want, want{e.Class, e.Code}); diff != "" {
			t.Errorf("%d %s %q: %s", c.status, c.code, c.message, diff)
		}
		if e.Message != c.message || e.Target != "t" {
			t.Errorf("%d %s: message %q, target %q", c.status, c.code, e.Message, e.Target)
		}
	}
}

// TestReasons: what /readyz says names the fix.
func TestReasons(t *testing.T) {
	for want, a := range map[string]Answer{
		"Machine.RestrictExecution": {Op: opUnrestrict, StatusCode: 403, Envelope: &Envelope{Message: "Missing application roles."}},
		"Machine.Read.All":          {Op: opList, StatusCode: 403, Envelope: &Envelope{Message: "Missing application roles."}},
		"audience":                  {Op: opUnrestrict, StatusCode: 403, Envelope: &Envelope{Message: "Access is denied."}},
		"DEFENDER_SCOPE":            {Op: opUnrestrict, StatusCode: 401, TokenFresh: true},
		"proxy":                     {Op: opUnrestrict, StatusCode: 404},
		"redirect":                  {Op: opUnrestrict, StatusCode: 302},
		"not enabled":               {Op: opUnrestrict, StatusCode: 403, Envelope: &Envelope{Code: "DisabledFeature"}},
	} {
		if e := Classify(a); !strings.Contains(e.Reason, want) {
			t.Errorf("HTTP %d: reason %q does not name %q", a.StatusCode, e.Reason, want)
		}
	}
}

// TestClassifyTruncated: an error body that broke off can't tell whose it is.
func TestClassifyTruncated(t *testing.T) {
	for status, want := range map[int]Class{400: Ambiguous, 404: Ambiguous, 403: Ambiguous, 429: Throttled, 401: System, 302: System, 503: Ambiguous} {
		if e := Classify(Answer{Op: opUnrestrict, StatusCode: status, Header: http.Header{}, Truncated: true, TokenFresh: true}); e.Class != want {
			t.Errorf("%d: got %s, want %s", status, e.Class, want)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, b := range bodies {
		f.Add([]byte(b.text))
	}
	f.Add([]byte(`{"error":{"code":"a","code":"b"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		env := parseEnvelope(body, nil)
		for _, status := range []int{400, 401, 403, 404, 429, 500} {
			e := Classify(Answer{Op: opUnrestrict, StatusCode: status, Envelope: env})
			if e.Class == 0 || e.Code == "" || e.RetryAfter < 0 {
				t.Fatalf("%d: %+v", status, e)
			}
			if env == nil && status == 404 && e.Class != System {
				t.Fatalf("404 without the envelope: %s", e.Class)
			}
		}
	})
}

func TestClassString(t *testing.T) {
	seen := map[string]bool{}
	for c := Transient; c <= Stale; c++ {
		seen[c.String()] = true
	}
	if len(seen) != 9 || Class(0).String() != "class(0)" || Class(10).String() != "class(10)" {
		t.Fatalf("names: %v", seen)
	}
}
