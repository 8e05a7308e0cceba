package message

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Verbs of an order.
const (
	VerbCancel  = "cancel"  // cancel requests that were not called yet
	VerbPause   = "pause"   // hold a batch's rows back
	VerbResume  = "resume"  // release them
	VerbApprove = "approve" // approve a request that awaits approval
	VerbDeny    = "deny"    // reject such a request
)

const (
	maxReason = 1000 // characters, of an order
	maxBatch  = 1024 // characters, of a batch name in an order

	// maxVerdict bounds an approve or a deny, in bytes: the audit record of the run holds each that counts.
	maxVerdict = 4 << 10
)

// Order is one message on the control subject (docs/schemas/control.json): what somebody wants done about requests. Its form
// is valid and, where signers are configured, so is its signature. Whether its sender may give it is not checked here.
type Order struct {
	Verb      string
	ID, Batch string // one of them
	// Signer and Client name the owner of the request, for an id that several owners have; "": not given.
	Signer, Client string
	Run            int // 0: not given
	Digest         string
	Reason         string
	Actions        bool      // for cancel: also ask the API to cancel an action that is under way
	ExpiresAt      time.Time // zero: never
	IssuedAt       time.Time // zero: not given

	// By and Key are its signer's name and public nkey; "" where no signers are configured. Via is the client of worker
	// intake that sent it; "" if it came another way.
	By, Key, Via string
	// For approve and deny: the signed subject and payload, and the signature, so that others can verify it
	// (docs/messages.md, orders).
	Subject, Text, Signature string

	Ref    string    // STREAM:SEQ
	Stored time.Time // by the broker's clock
}

// ParseOrder reads an order from a message of the control stream. Like Parse, it checks size, signature and form, in this
// order. With an Invalid it returns what is known of the message: Ref, Stored, and the signer.
func (r Rules) ParseOrder(d Delivery) (Order, *Invalid) {
	bare := Order{Ref: d.Ref(), Stored: d.Published}
	if n := len(d.Data); n > MaxPayload {
		return bare, &Invalid{Code: CodeTooLarge, Message: fmt.Sprintf("payload: has %d bytes, more than %d; shorten the order", n, MaxPayload)}
	}
	o, fault := readOrder(d.Data)
	claimed := claim(o.ID)
	signer, code, err := r.Signers.verify(d)
	if err != nil {
		return bare, &Invalid{Code: code, Message: err.Error(), ClaimedID: claimed}
	}
	if bare.By = signer; r.Signers != nil {
		bare.Key = d.Header.Get(HeaderSigner)
	}
	via, clientFault := clientOf(d.Header)
	if err := joined(fault, clientFault); err != nil {
		return bare, &Invalid{Code: CodeMalformed, Message: err.Error(), ClaimedID: claimed}
	}
	o.By, o.Key, o.Via, o.Ref, o.Stored = bare.By, bare.Key, via, bare.Ref, bare.Stored
	if o.Verb == VerbApprove || o.Verb == VerbDeny {
		if n := len(d.Data); n > maxVerdict {
			return o, &Invalid{Code: CodeTooLarge, Message: fmt.Sprintf("payload: has %d bytes, more than the %d that an audit record has room for; shorten the reason", n, maxVerdict), ClaimedID: claimed}
		}
		o.Subject, o.Text, o.Signature = d.Subject, string(d.Data), d.Header.Get(HeaderSignature)
	}
	if !o.ExpiresAt.IsZero() && !o.Stored.Before(o.ExpiresAt) {
		return o, &Invalid{Code: CodeExpired, Message: "expiresAt: the order expired at " + o.ExpiresAt.UTC().Format(time.RFC3339) + ", before it was stored; give it again if it still holds", ClaimedID: claimed}
	}
	return o, nil
}

// orderFields are the members of an order as the documents spell them.
var orderFields = [...]string{"verb", "id", "batch", "signedBy", "client", "run", "digest", "reason", "actions", "expiresAt", "issuedAt"}

// readOrder reads an order's object. With the faults of all fields it returns the fields that have none.
func readOrder(data []byte) (o Order, err error) {
	object, err := readObject(data)
	if err != nil {
		err = fmt.Errorf("payload: %w", err)
	}
	faults := []error{err}
	var seen []string
	for _, m := range object {
		i := slices.IndexFunc(orderFields[:], func(name string) bool { return len(name) == len(m.name) && strings.EqualFold(name, m.name) })
		if i < 0 {
			continue
		}
		name := orderFields[i]
		if slices.Contains(seen, name) {
			faults = append(faults, fmt.Errorf("%s: is given in two spellings; give it once", name))
			continue
		}
		if seen = append(seen, name); string(m.value) == "null" {
			continue
		}
		if err := o.readField(name, m.value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	if err == nil && joined(faults...) == nil {
		faults = append(faults, o.validate())
	}
	return o, joined(faults...)
}

func (o *Order) readField(name string, value []byte) (err error) {
	switch name {
	case "run":
		o.Run, err = strconv.Atoi(string(value))
		if err != nil || o.Run < 1 || o.Run > 1<<30 {
			return errors.New("is no run; give a whole number from 1")
		}
		return nil
	case "actions":
		o.Actions = string(value) == "true"
		if value[0] != 't' && value[0] != 'f' {
			return fmt.Errorf("is %s; give true or false", jsonKind(value))
		}
		return nil
	}
	s, err := text(value)
	if err != nil {
		return err
	}
	switch name {
	case "verb":
		o.Verb, err = s, checkVerb(s)
	case "id":
		o.ID, err = s, checkID(s)
	case "batch":
		o.Batch, err = s, checkLength(s, maxBatch)
	case "signedBy":
		o.Signer, err = s, CheckName(s)
	case "client":
		o.Client, err = s, CheckName(s)
	case "digest":
		o.Digest, err = s, checkDigest(s)
	case "reason":
		o.Reason, err = s, checkLength(s, maxReason)
	case "expiresAt":
		o.ExpiresAt, err = parseInstant(s)
	case "issuedAt":
		o.IssuedAt, err = parseInstant(s)
	}
	return err
}

func checkVerb(s string) error {
	if !slices.Contains([]string{VerbCancel, VerbPause, VerbResume, VerbApprove, VerbDeny}, s) {
		return errors.New("is none that there is; give cancel, pause, resume, approve or deny")
	}
	return nil
}

func checkLength(s string, limit int) error {
	if n := utf8.RuneCountInString(s); n > limit {
		return fmt.Errorf("has %d characters, more than %d; shorten it", n, limit)
	}
	return nil
}

func checkDigest(s string) error {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return errors.New("is none; give sha256: and 64 hexadecimal digits in lower case")
	}
	return nil
}

// validate checks the fields of an order against each other.
func (o *Order) validate() error {
	ofBatch := o.Verb == VerbPause || o.Verb == VerbResume
	ofID := o.Verb == VerbApprove || o.Verb == VerbDeny
	switch {
	case o.Verb == "":
		return errors.New("verb: is required; give cancel, pause, resume, approve or deny")
	case ofBatch && (o.Batch == "" || o.ID != ""):
		return errors.New("batch: is what " + o.Verb + " is about; name one, and no id")
	case ofID && (o.ID == "" || o.Batch != ""):
		return errors.New("id: is what " + o.Verb + " is about; name one, and no batch")
	case (o.ID == "") == (o.Batch == ""):
		return errors.New("id: is required, or batch, and not both; name what the order is about")
	case o.Signer != "" && o.Client != "":
		return errors.New("signedBy: and client name one and the same; give one of them")
	case o.Run != 0 && o.ID == "":
		return errors.New("run: is a request's; leave it out of an order about a batch")
	case o.Actions && o.Verb != VerbCancel:
		return errors.New("actions: belongs to cancel; leave it out")
	case o.Digest == "" && o.Verb == VerbApprove:
		return errors.New("digest: is required in approve; give that of the request which is approved")
	}
	return nil
}

// Encode returns the order's payload.
func (o *Order) Encode() ([]byte, error) {
	return EncodeJSON(struct {
		Verb      string    `json:"verb"`
		ID        string    `json:"id,omitempty"`
		Batch     string    `json:"batch,omitempty"`
		SignedBy  string    `json:"signedBy,omitempty"`
		Client    string    `json:"client,omitempty"`
		Run       int       `json:"run,omitempty"`
		Digest    string    `json:"digest,omitempty"`
		Reason    string    `json:"reason,omitempty"`
		Actions   bool      `json:"actions,omitempty"`
		ExpiresAt time.Time `json:"expiresAt,omitzero"`
		IssuedAt  time.Time `json:"issuedAt,omitzero"`
	}{o.Verb, o.ID, o.Batch, o.Signer, o.Client, o.Run, o.Digest, o.Reason, o.Actions, o.ExpiresAt, o.IssuedAt})
}

// About names what the order is about, for people.
func (o *Order) About() string {
	if o.Batch != "" {
		return "batch " + o.Batch
	}
	return o.ID
}
