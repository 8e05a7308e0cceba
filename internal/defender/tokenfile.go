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

// tokenFile takes the token from a file that something else keeps good. It is read at every use, which costs
// less than any of our calls and sees every way of replacing it.
type tokenFile struct {
	path string

	mu   sync.Mutex
	seen string // content when last handed out, "" if it could not be
}

const maxTokenFile = 64 << 10

func (f *tokenFile) Changed() bool {
	content, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	return err != nil || content != f.seen || f.seen == ""
}

func (f *tokenFile) Token(ctx context.Context, _ string, _ bool) (Token, error) {
	content, err := f.settled(ctx)
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

// settled reads past the moment in which a writer has emptied or removed the file to fill it again.
func (f *tokenFile) settled(ctx context.Context) (string, error) {
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
	if err != nil {
		return "", pathless(err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	switch token := strings.TrimSpace(string(content)); {
	case err != nil:
		return "", pathless(err)
	case len(content) > maxTokenFile:
		return "", errors.New("the file is too large for a token")
	case token == "":
		return "", errors.New("the file is empty: write a bearer token into it")
	default:
		return token, nil
	}
}

// pathless drops the path, which the caller names with the variable that gave it.
func pathless(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
