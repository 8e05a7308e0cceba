package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// TestBrowser looks at the status page as a person would, in headless Chromium: light and dark, wide and narrow, with nothing
// in it, with a batch of 5,000, and with a fault. It writes pictures into the folder that BROWSER_ARTIFACTS names, and those
// of the documentation into the one that PICTURES names; AXE is axe-core's file, which then has to find nothing (make
// pictures). Without Chromium it is skipped, but never on CI.
func TestBrowser(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	dir := t.TempDir()
	ann, bob := filepath.Join(dir, "ann.nk"), filepath.Join(dir, "bob.nk")
	s := runSystem(t, map[string]string{
		"WORKER_RATE_PER_MINUTE": "100", "WORKER_RATE_PER_HOUR": "1500",
		"WORKER_TRUSTED_SIGNERS": "ann=" + seedFile(t, ann) + ",bob=" + seedFile(t, bob),
		"WORKER_POLICY_FILE":     WriteTestFile(t, "policy.yaml", "signers:\n  bob:\n    approvals: {required: 1, by: [ann], within: 4h}\n  ann: {}\n"),
	})
	p := &pageTest{s: s, b: b, env: map[string]string{"WORKER_EMBEDDED_ADDR": s.addr(), "WORKER_DATA_DIR": s.dataDir()}}

	p.looksGood(t, "empty", "", "Healthy", "None in the last 24 hours.", "LAB: calls go to "+s.api.URL)
	p.fill(t, ann, bob)
	p.awaits(t, "INC-4698-1", "actionFailed", "waiting for approval", "OsPlatformNotSupported", "monday", "1 did not succeed", "waiting to be called, ")
	p.looksGood(t, "busy", "", "For somebody to decide", "worker deadletter replay --seq", "waiting for approval", "waiting to be called, ")
	p.looksGood(t, "search", "?q=INC-4711", "Close the search")
	p.looksGood(t, "request", "request?id=INC-4711-5", "waits for", "ann@contoso.com", "accepted as action", "result published: submitted")
	p.followsLinksByKeyboard(t)

	evil := fmt.Sprintf(`{"id":"evil","machineId":%q,"comment":"c","ticket":"<img src=x onerror=alert(1)>\u202e%s"}`, MachineOf(9), strings.Repeat("x", 200))
	if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, []byte(evil)); err != nil {
		t.Fatal(err)
	}
	s.api.Close()
	p.awaits(t, "No requests are taken", "unreachable", `\u{202e}xxx`)
	p.looksGood(t, "fault", "", "unreachable", "To do:")
	if n := b.evaluate(t, `document.querySelectorAll("main img, main script").length`); n != "0" {
		t.Errorf("%s elements of somebody's ticket", n)
	}
}

// pageTest is a worker whose page is looked at.
type pageTest struct {
	s   *system
	b   *browser
	env map[string]string
}

// fill has a day's work in it: a batch, single requests that end in different ways, an approval that is missing, and what nobody signed.
func (p *pageTest) fill(t *testing.T, ann, bob string) {
	t.Helper()
	p.s.sim.AddMachine(MachineOf(6001), defendersim.Machine{Outcome: "Failed"})
	for n := 6002; n < 6006; n++ {
		p.s.sim.AddMachine(MachineOf(n), defendersim.Machine{Offline: true})
	}
	submit := func(args ...string) {
		t.Helper()
		if status, _, stderr := command(t, p.env, append([]string{"submit"}, args...)...); status != 0 {
			t.Fatalf("%q: %s", args, stderr)
		}
	}
	for n := range 6 {
		submit("--machine", MachineOf(6000+n), "--comment", "Cleaned and validated", "--id", fmt.Sprint("INC-4711-", n), "--ticket", "INC-4711", "--requested-by", "ann@contoso.com", "--sign-with", ann)
	}
	submit("--machine", MachineOf(6010), "--comment", "Back from repair", "--id", "INC-4720-1", "--ticket", "INC-4720", "--requested-by", "cho@contoso.com", "--sign-with", bob)
	unsigned := fmt.Sprintf(`{"id":"INC-4698-1","machineId":%q,"comment":"c","ticket":"INC-4698","requestedBy":"old-playbook"}`, MachineOf(6011))
	if _, err := p.s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, []byte(unsigned)); err != nil {
		t.Fatal(err)
	}
	p.awaits(t, "INC-4711-5", "unsigned", "waiting for approval")
	p.s.refuse(MachineOf(3))
	var rows strings.Builder
	rows.WriteString("machineId,comment,ticket,requestedBy\n")
	for n := range 5000 {
		fmt.Fprintf(&rows, "%s,Ring %d,CHG-118,dana@contoso.com\n", MachineOf(n), n%5)
	}
	submit("--file", WriteTestFile(t, "machines.csv", rows.String()), "--batch", "monday", "--sign-with", ann)
}

// awaits loads the page until it shows all of that.
func (p *pageTest) awaits(t *testing.T, all ...string) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		page, missing := fetchText(t, p.s, "/"), ""
		for _, text := range all {
			if !strings.Contains(page, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page does not show %q: %s", missing, page)
		}
	}
}

// published are the pictures of the documentation, by state and look, and how much of each they show.
var published = map[string]int{"busy wide": 1500, "busy narrow-dark": 1500, "fault wide-dark": 545, "request wide": 900}

// looksGood looks at a page of the worker in each way, for texts that it must show, for what does not fit, and with axe-core.
func (p *pageTest) looksGood(t *testing.T, state, path string, wants ...string) {
	t.Helper()
	folder, docs := os.Getenv("BROWSER_ARTIFACTS"), os.Getenv("PICTURES")
	all := looks()
	if folder+docs == "" {
		all = []look{all[0], all[3]} // the others differ by their colours
	}
	for _, l := range all {
		name := state + " " + l.String()
		p.b.open(t, "http://"+p.s.work.AdminAddr.String()+"/"+path, l)
		shown := p.b.evaluate(t, "document.body.innerText")
		for _, want := range wants {
			if !strings.Contains(shown, want) {
				t.Errorf("%s: the page does not show %q: %s", name, want, shown)
			}
		}
		if wider := p.b.evaluate(t, "document.documentElement.scrollWidth > innerWidth"); wider != "false" {
			t.Errorf("%s: something is wider than the page", name)
		}
		p.axe(t, name)
		if folder != "" {
			p.b.picture(t, filepath.Join(folder, "status-"+strings.ReplaceAll(name, " ", "-")+".png"), 10_000)
		}
		if height := published[name]; height > 0 && docs != "" {
			p.b.picture(t, filepath.Join(docs, strings.ReplaceAll(name, " ", "-")+".png"), height)
		}
	}
}

// axe has axe-core look for what people with a keyboard, a screen reader or weak eyes can't use.
func (p *pageTest) axe(t *testing.T, name string) {
	t.Helper()
	file := os.Getenv("AXE")
	if file == "" {
		return
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.b.evaluate(t, string(source)+"\n;0")
	found := p.b.evaluate(t, `axe.run({resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html).join(" | ")).join("\n"))`)
	if found != "" {
		t.Errorf("%s: axe-core: %s", name, found)
	}
}

// followsLinksByKeyboard goes from the top of the page to a request's own page.
func (p *pageTest) followsLinksByKeyboard(t *testing.T) {
	t.Helper()
	p.b.open(t, "http://"+p.s.work.AdminAddr.String()+"/", looks()[0])
	var stops []string
	key := func(name string, code int) {
		for _, what := range []string{"rawKeyDown", "char", "keyUp"} {
			params := map[string]any{"type": what, "key": name, "code": name, "windowsVirtualKeyCode": code}
			if name == "Enter" {
				params["text"] = "\r"
			} else if what == "char" {
				continue
			}
			p.b.call(t, "Input.dispatchKeyEvent", params, nil)
		}
	}
	for len(stops) < 4 && !strings.HasPrefix(strings.Join(stops, ""), "A") {
		key("Tab", 9)
		stops = append(stops, p.b.evaluate(t, `document.activeElement.tagName + " " + (document.activeElement.id || document.activeElement.getAttribute("href") || "")`))
		if strings.HasPrefix(stops[len(stops)-1], "A request?id=") {
			break
		}
	}
	if got := strings.Join(stops, ", "); !strings.HasPrefix(got, "INPUT q, BUTTON , A request?id=") {
		t.Fatalf("the keyboard stops at %s", got)
	}
	key("Enter", 13)
	p.b.await(t, `location.pathname === "/request" && document.readyState === "complete"`)
	if text := p.b.evaluate(t, "document.body.innerText"); !strings.Contains(text, "What happened") {
		t.Errorf("the link leads to %s", text)
	}
}
