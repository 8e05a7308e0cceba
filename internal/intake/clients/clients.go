// Package clients recognises the clients that may ask over HTTP: by a token, by an app token of an OpenID provider, or
// by a certificate. It reads them from the clients file, again when that changes.
package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
)

// Client is one entry of the clients file.
type Client struct {
	Name  string
	Lanes []message.Lane
	Rate  int // POSTs and DELETEs a minute

	Seed   []byte // with it the intake signs the client's requests; nil: it does not sign
	Signer string // the public nkey of the seed, or of a client that signs itself; "": neither

	Callbacks []*Callback

	tokens [][sha256.Size]byte
	oidc   *oidcRule
	san    string
}

// Signs reports whether the client signs its requests itself.
func (c *Client) Signs() bool { return c.Signer != "" && c.Seed == nil }

// Set is the clients in force. It is safe for concurrent use.
type Set struct {
	path    string // "": there is no file
	log     *zap.Logger
	issuers *issuers

	mu      sync.Mutex
	text    []byte // that was read last, valid or not
	list    []*Client
	err     error     // why the file's present content is not in use
	version int       // grows when list changes
	changed time.Time // modification time of the file that list is from
	rate    map[string]*rates
}

// Load reads a clients file. Its error lists all mistakes in it.
func Load(path string, log *zap.Logger) (*Set, error) {
	s := newSet(log)
	s.path = path
	if s.text, s.err = message.ReadBounded(path, maxFile); s.err != nil {
		return nil, s.err
	}
	if s.list, s.err = parse(s.text); s.err != nil {
		return nil, s.err
	}
	s.changed = written(path)
	return s, nil
}

// maxFile bounds the clients file, in bytes.
const maxFile = 1 << 20

func newSet(log *zap.Logger) *Set {
	return &Set{log: log, issuers: newIssuers(), rate: map[string]*rates{}}
}

// Local is the set with one client, local. Its token is in a file of a folder, and is made if there is none. A crash in
// here leaves no incomplete token: the file gets its name last.
func Local(dir string, log *zap.Logger) (s *Set, file string, err error) {
	if file, err = filepath.Abs(filepath.Join(dir, "intake-token")); err != nil {
		return nil, "", err
	}
	data, err := os.ReadFile(file)
	token := bytes.TrimSpace(data)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, file, err
	case len(token) == 0:
		token = []byte(rand.Text())
		err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file+".new", append(token, '\n'), 0o600))
		if err == nil {
			err = os.Rename(file+".new", file)
		}
		if err != nil {
			return nil, file, err
		}
	}
	s = newSet(log)
	s.list = []*Client{{Name: "local", Lanes: message.Lanes(), Rate: usualRate, tokens: [][sha256.Size]byte{sha256.Sum256(token)}}}
	return s, file, nil
}

// lookEvery is how often the file is checked: a change counts within 10 s (docs/intake.md).
const lookEvery = 2 * time.Second

// Watch reloads the file when it changes, until ctx ends. If it is invalid, the last valid content stays in force.
func (s *Set) Watch(ctx context.Context) {
	if s.path == "" {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.reload()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Set) reload() {
	text, err := message.ReadBounded(s.path, maxFile)
	was := s.Err()
	if err == nil && bytes.Equal(text, s.text) && (was == nil || s.parsed(was)) {
		return
	}
	var list []*Client
	if err == nil {
		list, err = parse(text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	switch {
	case err == nil:
		s.text, s.list, s.version, s.changed = text, list, s.version+1, written(s.path)
		s.log.Info("the clients file was read again", zap.Int("clients", len(list)))
	case was == nil || was.Error() != err.Error():
		s.text = text
		s.log.Warn("the clients file is not in use, what was read before stays in force", zap.Error(err))
	}
}

// parsed reports whether an error is about the file's content, and so stays until the content changes.
func (s *Set) parsed(err error) bool {
	_, is := errors.AsType[*mistakes](err)
	return is
}

// Err is why the file's present content is not in use; nil if it is.
func (s *Set) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// All returns the clients, a number that changes with them, and when they were written to the file.
func (s *Set) All() (list []*Client, version int, changed time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, s.version, s.changed
}

// written is when a file was last written; now, if that is unknown.
func written(path string) time.Time {
	if info, err := os.Stat(path); err == nil {
		return info.ModTime()
	}
	return time.Now()
}

func (s *Set) current() []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

// mistakes are everything that is wrong with a clients file, by line.
type mistakes struct{ list []mistake }

type mistake struct {
	line int
	what error
}

func (m *mistakes) Error() string {
	var lines []string
	for _, one := range m.list {
		lines = append(lines, fmt.Sprintf("line %d: %v", one.line, one.what))
	}
	return strings.Join(lines, "\n")
}

func (m *mistakes) add(line int, format string, args ...any) {
	m.list = append(m.list, mistake{max(line, 1), fmt.Errorf(format, args...)})
	slices.SortStableFunc(m.list, func(a, b mistake) int { return a.line - b.line })
}
