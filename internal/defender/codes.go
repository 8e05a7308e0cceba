package defender

import (
	"slices"
	"strings"
)

// documented are the codes of Defender's errors ([doc] common-errors.md, run-live-response.md), and the one of its live 429s.
var documented = strings.Fields(`BadRequest ODataError InvalidInput InvalidRequestBody InvalidHashValue InvalidDomainName InvalidIpAddress InvalidUrl
	MaximumBatchSizeExceeded MissingRequiredParameter OsPlatformNotSupported ClientVersionNotSupported ActiveRequestAlreadyExists
	Unauthorized Forbidden DisabledFeature DisallowedOperation NotFound ResourceNotFound TooManyRequests 429 InternalServerError`)

// Label is an error's code as a metric may bear it: one of a fixed number of values, whatever the API answers.
func Label(code string) string {
	number, isStatus := strings.CutPrefix(code, "http")
	switch {
	case slices.Contains(documented, code), slices.Contains(ownCodes, code):
		return code
	case isStatus && len(number) == 3 && strings.Trim(number, "0123456789") == "":
		return code
	}
	return "other"
}
