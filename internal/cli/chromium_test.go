package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"
)

// browser is a headless Chromium with one page, which a test drives by the DevTools protocol over a pipe.
type browser struct {
	to      *os.File
	from    *bufio.Reader
	session string
	last    int
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), findChromium(t), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	its, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{its, answers} // it reads 3 and writes 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	its.Close()
	answers.Close()
	b := &browser{to: to, from: bufio.NewReader(from)}
	t.Cleanup(func() {
		b.call(t, "Browser.close", nil, nil)
		_ = cmd.Wait()
		to.Close()
		from.Close()
	})
	var page struct{ TargetID, SessionID string }
	b.call(t, "Target.createTarget", map[string]any{"url": "about:blank"}, &page)
	b.call(t, "Target.attachToTarget", map[string]any{"targetId": page.TargetID, "flatten": true}, &page)
	b.session = page.SessionID
	return b
}

// call asks the browser, and waits for its answer; what else it says is of no interest.
func (b *browser) call(t *testing.T, method string, params, result any) {
	t.Helper()
	b.last++
	ask := map[string]any{"id": b.last, "method": method}
	if params != nil {
		ask["params"] = params
	}
	if b.session != "" && method != "Browser.close" {
		ask["sessionId"] = b.session
	}
	text, err := json.Marshal(ask)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	for err == nil {
		var said []byte
		if said, err = b.from.ReadBytes(0); err != nil {
			break
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err = json.Unmarshal(said[:len(said)-1], &answer); err != nil || answer.ID != b.last {
			continue
		}
		if answer.Error != nil {
			t.Fatalf("%s: %s", method, answer.Error.Message)
		}
		if result != nil {
			err = json.Unmarshal(answer.Result, result)
		}
		break
	}
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

// look is how somebody looks at a page.
type look struct {
	width int
	dark  bool
}

func (l look) String() string {
	name := "wide"
	if l.width < 800 {
		name = "narrow"
	}
	if l.dark {
		name += "-dark"
	}
	return name
}

// looks are each scheme at each width.
func looks() []look { return []look{{1280, false}, {1280, true}, {400, false}, {400, true}} }

// open loads a page.
func (b *browser) open(t *testing.T, url string, l look) {
	t.Helper()
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	b.call(t, "Emulation.setDeviceMetricsOverride", map[string]any{"width": l.width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call(t, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call(t, "Page.navigate", map[string]any{"url": url}, nil)
	b.await(t, "location.href !== 'about:blank' && document.readyState === 'complete'")
}

// await waits until an expression is true.
func (b *browser) await(t *testing.T, expression string) {
	t.Helper()
	for b.evaluate(t, expression) != "true" {
		select {
		case <-t.Context().Done():
			t.Fatalf("never: %s", expression)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// evaluate is what an expression of JavaScript yields, or resolves to: a string as it is, else as JSON.
func (b *browser) evaluate(t *testing.T, expression string) string {
	t.Helper()
	var answer struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call(t, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.ExceptionDetails != nil {
		t.Fatalf("%.200s: %s", expression, answer.ExceptionDetails)
	}
	if text, is := answer.Result.Value.(string); is {
		return text
	}
	text, err := json.Marshal(answer.Result.Value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// picture writes what the page shows, from its top, as PNG.
func (b *browser) picture(t *testing.T, file string, height int) {
	t.Helper()
	var size struct{ Width, Height float64 }
	if err := json.Unmarshal([]byte(b.evaluate(t, `({width: innerWidth, height: document.body.getBoundingClientRect().height})`)), &size); err != nil {
		t.Fatal(err)
	}
	var shot struct{ Data string }
	b.call(t, "Page.captureScreenshot", map[string]any{
		"format": "png", "captureBeyondViewport": true,
		"clip": map[string]any{"x": 0, "y": 0, "width": size.Width, "height": min(size.Height, float64(height)), "scale": 1},
	}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(file, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func findChromium(t *testing.T) string {
	t.Helper()
	return findProgram(t, "chromium", "chromium-browser", "google-chrome")
}

// findProgram is where the first of these programs is that this machine has. Where there is none the test is skipped, but not on
// CI, for which .ci/run installs it.
func findProgram(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "" {
		t.Skip(names[0] + " is not installed")
	}
	t.Fatal(names[0] + " is not installed; .ci/run installs it")
	return ""
}
