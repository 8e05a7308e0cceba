package config

import (
	"strings"
	"unicode"

	"example.com/unrestrict-worker/internal/broker"
)

// isSubject tells whether one can publish on a subject: no wildcards, no empty
// tokens, not one of NATS's own.
func isSubject(text string) bool {
	if strings.ContainsFunc(text, unprintable) || strings.ContainsAny(text, "*>") || strings.HasPrefix(text, "$") || strings.HasPrefix(text, "_") {
		return false
	}
	for token := range strings.SplitSeq(text, ".") {
		if token == "" {
			return false
		}
	}
	return true
}

// isName tells whether a stream or consumer can have a name.
func isName(text string) bool {
	return text != "" && len(text) <= 255 && !strings.ContainsFunc(text, unprintable) && !strings.ContainsAny(text, `.*>/\`)
}

// isTaken tells whether a stream's name is one of the worker's own, or of a bucket.
func isTaken(text string) bool {
	return text == broker.AuditStream || strings.HasPrefix(text, "UNRESTRICT_") || strings.HasPrefix(text, "KV_") || strings.HasPrefix(text, "OBJ_")
}

func unprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
