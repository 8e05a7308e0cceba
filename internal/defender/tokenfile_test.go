package defender

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source, err := NewCredential(CredentialConfig{Mode: "token-file", TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	tokens := tokensOf(t, source)
	holds := func(want string) {
		t.Helper()
		if got, err := value(t, tokens); got != want {
			t.Fatalf("got %q (%v), want %q", got, err, want)
		}
	}
	fails := func(says string) {
		t.Helper()
		_, err := value(t, tokens)
		e := expect(t, err, System, codeToken, false)
		if !strings.Contains(e.Reason, "DEFENDER_TOKEN_FILE") || !strings.Contains(e.Reason, says) {
			t.Fatalf("reason %q does not name %q", e.Reason, says)
		}
	}
	fails("no such file")
	write("opaque-token-1\n") // no pause after a failure
	holds("opaque-token-1")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write("opaque-token-2") // as long, and as old
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	holds("opaque-token-2")
	next := filepath.Join(dir, "next")
	if err := os.WriteFile(next, []byte(" opaque-token-3 \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	holds("opaque-token-3")
	write(" \n")
	fails("empty")
	write(jwt(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}))
	fails("expired")
	write(strings.Repeat("x", maxToken+1))
	fails("too large")
	write("two words")
	fails("no bearer token")
	good := jwt(map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
	write(good)
	holds(good)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fails("no such file")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	fails("is a directory")
}

// TestTokenFileRefused: the same content is the same token, and its refusal the system's fault until it changes.
func TestTokenFileRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("opaque-token-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := must(NewCredential(CredentialConfig{Mode: "token-file", TokenFile: path}))
	c := clientOf(t, authorised(t, func(tok string) bool { return tok == "opaque-token-2" }), tokensOf(t, source), &openBudget{})
	for range 3 {
		_, err := post(t.Context(), c)
		expect(t, err, System, "Unauthorized", true)
	}
	if err := os.WriteFile(path, []byte("opaque-token-2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// TestTokenFileBeingWritten: a writer that empties the file first does not take the token away.
func TestTokenFileBeingWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &tokenFile{path: path}
		done := make(chan error, 1)
		go func() {
			tok, err := f.Token(t.Context(), "", false)
			if err == nil && tok.Value != "opaque-token" {
				t.Errorf("%q", tok.Value)
			}
			done <- err
		}()
		synctest.Wait() // it has read the empty file
		if err := os.WriteFile(path, []byte("opaque-token"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
