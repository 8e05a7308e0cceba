package message

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nkeys"
)

// Headers of a signed request.
const (
	HeaderSigner    = "Request-Signer"    // public nkey
	HeaderSignature = "Request-Signature" // base64url of the Ed25519 signature over subject, line feed, payload
)

// Signers are the trusted public nkeys, with their owners' names. A nil *Signers requires no signature. It is safe for
// concurrent use.
type Signers struct {
	path string // "": given as a list, never reloaded

	mu    sync.Mutex
	seen  os.FileInfo       // the file that was read last, whether it was good or not
	names map[string]string // public nkey to name; never changed, only replaced
	err   error
}

// maxSigners bounds the file of signers, in bytes: some ten thousand of them.
const maxSigners = 1 << 20

// ParseSigners reads NKEY or NAME=NKEY entries, separated by commas or white space. Without a name the nkey is the name. For
// an empty list, which means that no signature is required, it returns nil, nil.
func ParseSigners(list string) (*Signers, error) {
	if list == "" {
		return nil, nil
	}
	names := map[string]string{}
	entries := strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	for i, entry := range entries {
		name, key, ok := strings.Cut(entry, "=")
		if !ok {
			name, key = "", entry
		}
		if err := addSigner(names, key, name); err != nil {
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no signer in the list; give public nkeys, or leave it empty to ask for no signatures")
	}
	return &Signers{names: names}, nil
}

// SignersFile reads a file of one "NKEY NAME" a line; the name is optional, blank lines and what follows a # are ignored.
// Whenever a signature is checked, the file is checked too, and read again if it has changed. If it can't be read then, has
// a mistake in any line, or names no signer, the previous signers stay in force and Err reports why.
func SignersFile(path string) (*Signers, error) {
	s := &Signers{path: path}
	s.reload()
	if s.err != nil {
		return nil, s.err
	}
	return s, nil
}

// Err is why the file's present content is not in use; nil if it is.
func (s *Signers) Err() error {
	if s == nil {
		return nil
	}
	s.current()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Names are the signers' names, sorted, each once.
func (s *Signers) Names() []string {
	if s == nil {
		return nil
	}
	return slices.Compact(slices.Sorted(maps.Values(s.current())))
}

// Knows reports whether a signer has this name or public nkey.
func (s *Signers) Knows(nameOrKey string) bool {
	names := s.current()
	if _, is := names[nameOrKey]; is {
		return true
	}
	for _, name := range names {
		if name == nameOrKey {
			return true
		}
	}
	return false
}

// NameOf is the name of the signer with this public nkey; "" if there is none.
func (s *Signers) NameOf(key string) string {
	if s == nil {
		return ""
	}
	return s.current()[key]
}

func (s *Signers) current() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path != "" {
		s.reload()
	}
	return s.names
}

// reload reads the file if it is not the one seen last.
func (s *Signers) reload() {
	info, err := os.Stat(s.path)
	if err != nil {
		s.seen, s.err = nil, fmt.Errorf("signers file: %w", err)
		return
	}
	if s.seen != nil && os.SameFile(s.seen, info) && s.seen.ModTime().Equal(info.ModTime()) && s.seen.Size() == info.Size() {
		return
	}
	content, err := ReadBounded(s.path, maxSigners)
	if err != nil {
		s.seen, s.err = nil, fmt.Errorf("signers file: %w", err)
		return
	}
	names, err := parseSignersFile(content)
	s.seen = StableInfo(info)
	if err != nil {
		s.err = fmt.Errorf("signers file %s: %w", s.path, err)
		return
	}
	s.names, s.err = names, nil
}

func parseSignersFile(content []byte) (map[string]string, error) {
	names := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		key, name, _ := strings.Cut(strings.TrimSpace(text), " ")
		if key == "" {
			continue
		}
		if err := addSigner(names, key, strings.TrimSpace(name)); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("no signer in it; give one NKEY NAME a line")
	}
	return names, nil
}

// addSigner never quotes the entry in an error: it may be a seed that was put in the place of the public nkey.
func addSigner(names map[string]string, key, name string) error {
	if nkeys.Prefix(key) == nkeys.PrefixByteSeed || nkeys.Prefix(name) == nkeys.PrefixByteSeed {
		return errors.New("is a seed, which is secret; give the public nkey, and make a new pair, for this one was shown")
	}
	if !nkeys.IsValidPublicKey(key) || nkeys.IsValidPublicCurveKey(key) {
		return errors.New("is no public nkey that can sign (56 characters, of a user U..., account A..., operator O..., server N... or cluster C...)")
	}
	if _, twice := names[key]; twice {
		return errors.New("is there twice; give each nkey once")
	}
	if name == "" {
		name = key
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("its name %w", err)
	}
	names[key] = name
	return nil
}

// verify checks a message's signature and returns its signer's name. With an error it returns the code of an Invalid.
func (s *Signers) verify(d Delivery) (name, code string, err error) {
	if s == nil {
		return "", "", nil
	}
	key, signature := d.Header.Get(HeaderSigner), d.Header.Get(HeaderSignature)
	if key == "" || signature == "" {
		return "", CodeUnsigned, fmt.Errorf("headers %s and %s: are required here; sign the request, for instance with worker submit --sign-with", HeaderSigner, HeaderSignature)
	}
	name, ok := s.current()[key]
	if !ok {
		return "", CodeUnknownSigner, fmt.Errorf("header %s: names no trusted signer; have the public nkey added to the trusted signers", HeaderSigner)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(signature, "="))
	if err != nil {
		return "", CodeBadSignature, fmt.Errorf("header %s: is not base64url", HeaderSignature)
	}
	public, err := nkeys.FromPublicKey(key)
	if err != nil {
		return "", CodeBadSignature, fmt.Errorf("header %s: %w", HeaderSigner, err)
	}
	if public.Verify(SignedText(d.Subject, d.Data), raw) != nil {
		return "", CodeBadSignature, fmt.Errorf("header %s: is not this signer's signature of this subject and payload; sign the exact bytes that are sent, for the subject they are sent on", HeaderSignature)
	}
	return name, "", nil
}

// Sign makes the values of the headers HeaderSigner and HeaderSignature with an nkey seed, as text or as a file that
// nsc or nk wrote. The error never shows the seed.
func Sign(seed []byte, subject string, payload []byte) (signer, signature string, err error) {
	pair, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		if pair, err = nkeys.ParseDecoratedNKey(seed); err != nil {
			return "", "", errors.New("no nkey seed in the file to sign with; make one with nk -gen user")
		}
	}
	defer pair.Wipe()
	if signer, err = pair.PublicKey(); err != nil {
		return "", "", fmt.Errorf("public nkey of the seed: %w", err)
	}
	raw, err := pair.Sign(SignedText(subject, payload))
	if err != nil {
		return "", "", fmt.Errorf("sign the request: %w", err)
	}
	return signer, base64.RawURLEncoding.EncodeToString(raw), nil
}

// SignedText is what a signature covers.
func SignedText(subject string, payload []byte) []byte {
	return slices.Concat([]byte(subject), []byte("\n"), payload)
}

// SignedDigest is the SHA-256 of a message's signed text, by which an approval names the message.
func SignedDigest(subject string, payload []byte) string {
	sum := sha256.Sum256(SignedText(subject, payload))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Signed reports whether a key's signature of a message is valid, whether or not the key is trusted.
func Signed(key, signature, subject string, payload []byte) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(signature, "="))
	if err != nil {
		return false
	}
	public, err := nkeys.FromPublicKey(key)
	return err == nil && public.Verify(SignedText(subject, payload), raw) == nil
}
