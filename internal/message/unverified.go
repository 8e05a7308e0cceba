package message

// Unverified says whether nobody vouches for a message that is refused: it has no valid form or no valid signature, and
// no signer. Whoever may publish can send any number of them, so what each leaves behind is bounded (ADR 14).
func (i *Invalid) Unverified(r Request) bool {
	switch i.Code {
	case CodeMalformed, CodeTooLarge, CodeUnsigned, CodeUnknownSigner, CodeBadSignature:
		return r.SignedBy == ""
	}
	return false
}
