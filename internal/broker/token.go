package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenFile is where the embedded broker's token is, if WORKER_EMBEDDED_TOKEN doesn't say it: other users of this machine,
// who reach the broker's address as well, can't read it.
func tokenFile(dir string) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, "token"))
	if err != nil {
		return "", fmt.Errorf("WORKER_DATA_DIR: %w", err)
	}
	return path, nil
}

// embeddedToken is what the clients of the embedded broker must sign in with, made at the first start. The caller has the
// store's lock. A crash in here leaves no half a token: the file gets its name last.
func embeddedToken(cfg Config) (token, file string, err error) {
	if cfg.EmbeddedToken != "" {
		return cfg.EmbeddedToken, "", nil
	}
	if token, file, err = keptToken(cfg); err != nil || token != "" {
		return token, file, err
	}
	token = rand.Text()
	if err := os.WriteFile(file+".new", []byte(token+"\n"), 0o600); err != nil {
		return "", "", fmt.Errorf("keep the embedded broker's token (WORKER_DATA_DIR, or set WORKER_EMBEDDED_TOKEN): %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return "", "", fmt.Errorf("keep the embedded broker's token (WORKER_DATA_DIR, or set WORKER_EMBEDDED_TOKEN): %w", err)
	}
	return token, file, nil
}

// keptToken reads the token that a worker keeps in its data folder; "": there is none, or a power cut has left none of it.
func keptToken(cfg Config) (token, file string, err error) {
	if file, err = tokenFile(cfg.DataDir); err != nil {
		return "", "", err
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", file, nil
	}
	if err != nil {
		return "", "", fmt.Errorf("the embedded broker's token: %w; it is for the user that runs the worker, others need WORKER_EMBEDDED_TOKEN", err)
	}
	return strings.TrimSpace(string(data)), file, nil
}
