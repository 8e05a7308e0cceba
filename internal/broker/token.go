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

// tokenFile is the file with the embedded broker's token, if WORKER_EMBEDDED_TOKEN does not set it. Other users of this machine
// can reach the broker's address, but can't read the file.
func tokenFile(dir string) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, "token"))
	if err != nil {
		return "", fmt.Errorf("WORKER_DATA_DIR: %w", err)
	}
	return path, nil
}

// embeddedToken returns the token that clients of the embedded broker must sign in with, and generates it at the first start.
// The caller holds the store's lock. A crash here leaves no partial token, because the file gets its name last.
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

// keptToken reads the token that a worker keeps in its data folder; "": there is no file, or a power cut has emptied it.
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
