package cli

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestBrowser looks at the status page of `worker demo --stay` as a person would, in headless Chromium, and keeps a
// picture in the folder that BROWSER_ARTIFACTS names. Without Chromium it is skipped, but never on CI.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium := findChromium(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &watched{}
	env := map[string]string{"WORKER_EMBEDDED_ADDR": "127.0.0.1:0", "WORKER_ADMIN_ADDR": "127.0.0.1:0"}
	status := make(chan int, 1)
	go func() {
		status <- Run(ctx, []string{"demo", "--stay"}, environOf(env), strings.NewReader(""), out, io.Discard)
	}()
	defer func() { cancel(); <-status }()
	for !strings.Contains(out.String(), "Everything keeps running") {
		select {
		case s := <-status:
			status <- s
			t.Fatalf("demo ended with %d: %s", s, out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	page := regexp.MustCompile(`Status page: (http://\S+)`).FindStringSubmatch(out.String())
	if page == nil {
		t.Fatalf("no address of the page in %s", out.String())
	}

	folder := os.Getenv("BROWSER_ARTIFACTS")
	if folder == "" {
		folder = t.TempDir()
	}
	// Each scheme at each width; the search is part of the page that is asked for.
	for name, look := range map[string]struct{ size, scheme, query string }{
		"desktop": {"1280,2400", "1", ""}, "phone": {"390,2400", "1", ""}, "desktop-dark": {"1280,2400", "0", "?q=demo-1"}, "phone-dark": {"390,2400", "0", "?q=demo-1"},
	} {
		picture := filepath.Join(folder, "status-"+name+".png")
		cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
			"--window-size="+look.size, "--blink-settings=preferredColorScheme="+look.scheme, "--timeout=5000", "--dump-dom", "--screenshot="+picture, page[1]+look.query)
		dom, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wants := []string{"Healthy", "demo-1", "succeeded", "ResourceNotFound", "REMEDIATION:", "Latest failures", "Batches of", "Find a request", "actionFailed"}
		if look.query != "" {
			wants = append(wants, "Close the search")
		}
		for _, want := range wants {
			if !strings.Contains(string(dom), want) {
				t.Errorf("%s: the page does not show %q", name, want)
			}
		}
		if info, err := os.Stat(picture); err != nil || info.Size() < 10_000 {
			t.Errorf("%s: no picture: %v", name, err)
		}
	}
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "" {
		t.Skip("chromium is not installed")
	}
	t.Fatal("chromium is not installed; .ci/run installs it")
	return ""
}
