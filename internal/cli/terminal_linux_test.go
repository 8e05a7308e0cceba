package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/unrestrict-worker/internal/cli/deadletter"
	"example.com/unrestrict-worker/internal/cli/session"
)

// openTerminal is a terminal of the given width, and what somebody who sits at it writes and sees.
func openTerminal(t *testing.T, columns uint16) (terminal, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return terminal, person
}

func TestAsksOnATerminal(t *testing.T) {
	terminal, person := openTerminal(t, 80)
	for _, c := range []struct {
		typed       string
		stdin       bool
		yes, asks   bool
		json, goOn  bool
		wantMessage string
	}{
		{typed: "y\n", stdin: true, asks: true, goOn: true},
		{typed: "YES\n", stdin: true, asks: true, goOn: true},
		{typed: "\n", stdin: true, asks: true, wantMessage: "nothing was done"},
		{typed: "no\n", stdin: true, asks: true, wantMessage: "nothing was done"},
		{stdin: true, yes: true, goOn: true},
		{goOn: true}, // a pipe
		{goOn: true, json: true},
	} {
		var out, errs bytes.Buffer
		env := &session.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
		if c.stdin {
			env.Stdin = terminal
			if _, err := person.WriteString(c.typed); err != nil {
				t.Fatal(err)
			}
		}
		s := deadletter.Reporter{Env: env, Done: "dropped", JSON: c.json}
		goOn, err := s.Confirm(t.Context(), c.yes, "Dropping 2 dead letters for good.", 2)
		if goOn != c.goOn || (err == nil) != (c.wantMessage == "") || err != nil && !strings.Contains(err.Error(), c.wantMessage) {
			t.Errorf("%+v: goes on %t, %v", c, goOn, err)
		}
		if asked := strings.Contains(errs.String(), "[y/N]"); asked != c.asks {
			t.Errorf("%+v: asked %t", c, asked)
		}
		said := out.String()
		if c.json {
			said = errs.String()
		}
		if !strings.HasPrefix(said, "Dropping 2 dead letters for good.\n") {
			t.Errorf("%+v: said %q first", c, said)
		}
	}
}

// TestQuestionHeedsInterrupt: the first Ctrl-C ends a question, whatever is typed later.
func TestQuestionHeedsInterrupt(t *testing.T) {
	terminal, person := openTerminal(t, 80)
	ctx, interrupt := context.WithCancel(t.Context())
	var errs bytes.Buffer
	asked := make(chan error, 1)
	go func() { asked <- session.Ask(ctx, &session.Env{Stdin: terminal, Stderr: &errs}) }()
	interrupt()
	if err := <-asked; err == nil || err.Error() != "nothing was done" {
		t.Errorf("%v", err)
	}
	if _, err := person.WriteString("y\n"); err != nil { // so that the read ends
		t.Fatal(err)
	}
}

func TestScreenOfATerminal(t *testing.T) {
	terminal, _ := openTerminal(t, 60)
	for _, c := range []struct {
		env    map[string]string
		colour bool
	}{
		{nil, true}, {map[string]string{"NO_COLOR": "1"}, false}, {map[string]string{"NO_COLOR": ""}, true}, {map[string]string{"TERM": "dumb"}, false},
	} {
		env := &session.Env{Stdout: terminal, Lookup: func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }}
		if s := session.NewScreen(env); s.Colour != c.colour || s.Width != 60 {
			t.Errorf("%v: %+v", c.env, s)
		}
	}
	none := session.NewScreen(&session.Env{Stdout: &bytes.Buffer{}, Lookup: func(string) (string, bool) { return "", false }})
	if none.Colour || none.Width != session.DefaultColumns {
		t.Errorf("no terminal: %+v", none)
	}
}

// TestTableFits cuts rows where they would be wrapped, and only there.
func TestTableFits(t *testing.T) {
	table := session.NewTable("ID", "MESSAGE")
	table.Row("1", strings.Repeat("long ", 20))
	terminal, person := openTerminal(t, 40)
	if err := table.Fit(terminal); err != nil {
		t.Fatal(err)
	}
	const end = "end\r\n" // a read may bring less than all that was written
	if _, err := terminal.WriteString("end\n"); err != nil {
		t.Fatal(err)
	}
	got, seen := "", make([]byte, 1000)
	for !strings.HasSuffix(got, end) {
		n, err := person.Read(seen)
		if err != nil {
			t.Fatal(err)
		}
		got += string(seen[:n])
	}
	want := "ID  MESSAGE\r\n1   " + strings.Repeat("long ", 7) + "…\r\n" + end
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var out bytes.Buffer
	if err := table.Fit(&out); err != nil || !strings.Contains(out.String(), strings.Repeat("long ", 20)) {
		t.Errorf("%v: %q", err, out.String())
	}
}
