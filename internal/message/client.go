package message

import (
	"cmp"
	"fmt"
	"strings"
)

// HeaderClient names the client of worker intake whose request the message is.
const HeaderClient = "Request-Client"

// maxName bounds the name of a signer or client in characters.
const maxName = 64

// checkName says what keeps a text from being the name of a signer or client. It does not repeat it.
func checkName(name string) error {
	other := strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._@-", r)
	})
	if name == "" || len(name) > maxName || other {
		return fmt.Errorf("must be 1 to %d of the characters a to z, A to Z, 0 to 9 and . _ @ -; choose another name", maxName)
	}
	return nil
}

// clientOf is the client that a message names, "" if it names none.
func clientOf(h Header) (string, error) {
	name, there := h.lookup(HeaderClient)
	if !there {
		return "", nil
	}
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("header %s: %w", HeaderClient, err)
	}
	return name, nil
}

// Owner is the name of the signer or client whose request it is, "" if it is nobody's.
func (r Request) Owner() string { return cmp.Or(r.SignedBy, r.Client) }
