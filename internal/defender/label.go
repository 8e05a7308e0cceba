package defender

import "strconv"

// OtherCode is the label of every code that is none of the known ones.
const OtherCode = "other"

// CodeLabel is an Error's Code as a metric's label and a reason's code have it: what Microsoft documents, an HTTP status,
// or a code of our own. An answer can have any other code, and each would be a time series that is never forgotten.
func CodeLabel(code string) string {
	switch code {
	case "BadRequest", "ODataError", "InvalidInput", "InvalidRequestBody", "MaximumBatchSizeExceeded", "MissingRequiredParameter",
		"OsPlatformNotSupported", "ClientVersionNotSupported", "Unauthorized", "Forbidden", "DisabledFeature", "DisallowedOperation",
		"NotFound", "ResourceNotFound", "ActiveRequestAlreadyExists", "TooManyRequests", "InternalServerError", // [doc] common-errors.md
		codeRefused, codeDNS, codeTLS, codeProxy, codeTimeout, codeCut, codeConnect, codeCancelled, codeUnreadable, codeNoAction,
		codeToken, codeRedirect, codeNotDefender, codeStale, codeMachineID, codeActionID:
		return code
	}
	if len(code) == len("http404") && code[:4] == "http" {
		if status, err := strconv.Atoi(code[4:]); err == nil && status >= 100 && status <= 599 {
			return code
		}
	}
	return OtherCode
}
