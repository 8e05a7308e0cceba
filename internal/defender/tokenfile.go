package defender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// tokenFile takes the token from a file that something else keeps current. Each use checks the file, and reads it if it
// is another file or may have been written since it was read.
type tokenFile struct {
	path string

	mu     sync.Mutex
	seen   string      // the content returned last, "" if there was an error
	stable os.FileInfo // of the file that holds seen, if it was read long enough after its last write; else nil
}

// stableAfter is how old the last write of a file must be when it is read, so that a later write shows in the
// modification time.
const stableAfter = 2 * time.Second

// Changed reports whether the file may hold another token.
func (f *tokenFile) Changed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.stable != nil && os.SameFile(info, f.stable) && info.ModTime().Equal(f.stable.ModTime()) && info.Size() == f.stable.Size() {
		return false
	}
	f.stable = nil
	content, readErr := f.read()
	if err != nil || readErr != nil || content != f.seen || f.seen == "" {
		return true
	}
	if time.Since(info.ModTime()) > stableAfter {
		f.stable = info // from before the read: a write in between shows the next time
	}
	return false
}

// Token reads the file.
func (f *tokenFile) Token(ctx context.Context, _ string, _ bool) (Token, error) {
	content, err := f.readRetrying(ctx)
	if err == nil {
		err = Token{Value: content}.unusable(time.Now())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.seen = ""
		return Token{}, fmt.Errorf("DEFENDER_TOKEN_FILE (%s): %w", f.path, err)
	}
	f.seen = content
	return Token{Value: content}, nil
}

// readRetrying reads the file, and retries while a writer has emptied or removed it in order to write it anew.
func (f *tokenFile) readRetrying(ctx context.Context) (string, error) {
	for range 4 {
		if content, err := f.read(); err == nil {
			return content, nil
		}
		select {
		case <-time.After(25 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return f.read()
}

func (f *tokenFile) read() (string, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("there is no such file: start what writes it (worker simulate writes a new one at each start)")
	}
	if err != nil {
		return "", pathless(err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	switch token := strings.TrimSpace(string(content)); {
	case err != nil:
		return "", pathless(err)
	case len(content) > maxToken:
		return "", errors.New("the file is too large for a token")
	case token == "":
		return "", errors.New("the file is empty: write a bearer token into it")
	default:
		return token, nil
	}
}

// pathless drops the path, which the caller names with the variable that gave it.
func pathless(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
