package cli

import (
	"bytes"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

const repository = "../.."

// pages are the Markdown files by their path in the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "deploy/*.md", "deploy/*/*.md", "deploy/helm/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no page matches %s: %v", pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(repository, file)
			if err != nil {
				t.Fatal(err)
			}
			found[filepath.ToSlash(name)] = string(content)
		}
	}
	return found
}

var fence = regexp.MustCompile("(?ms)^( *)```([a-z]*)[^\n]*\n(.*?)^ *```$")

// blocks are the code blocks of a page in one language, without their indentation.
func blocks(page, language string) (code []string) {
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		if m[2] == language {
			code = append(code, strings.ReplaceAll("\n"+m[3], "\n"+m[1], "\n")[1:])
		}
	}
	return code
}

// shellCommands are the simple commands of a block, each as its words. It knows what these pages use: quotes, comments,
// continued lines, and ; && | between commands.
func shellCommands(block string) (commands [][]string) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		if endWord(); len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	comment := false
	for _, r := range strings.ReplaceAll(block, "\\\n", " ") {
		switch {
		case comment:
			if comment = r != '\n'; !comment {
				endCommand()
			}
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			comment = true
		case strings.ContainsRune("\n;&|", r):
			endCommand()
		case r == ' ' || r == '\t':
			endWord()
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	endCommand()
	return commands
}

// TestDocsCommands holds every command line in the pages against the program.
func TestDocsCommands(t *testing.T) {
	targets, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, page := range pages(t) {
		for _, block := range blocks(page, "sh") {
			for _, words := range shellCommands(block) {
				seen++
				for len(words) > 1 && words[0] != "export" && strings.Contains(words[0], "=") {
					words = words[1:] // variables are looked at by TestDocsVariables
				}
				switch {
				case words[0] == "worker":
					parses(t, name, words[1:])
				case slices.Equal(words[:min(3, len(words))], []string{"go", "run", "./cmd/worker"}):
					parses(t, name, words[3:])
				case words[0] == "make":
					for _, target := range words[1:] {
						if !bytes.Contains(targets, []byte("\n"+target+":")) {
							t.Errorf("%s: the Makefile has no %s", name, target)
						}
					}
				case words[0] == "nats":
					natsCommand(t, name, words)
				case words[0] == "curl" && strings.HasPrefix(words[len(words)-1], "http://127.0.0.1:8443/sim/"):
					simCommand(t, name, words)
				case words[0] == "curl" && strings.HasPrefix(words[len(words)-1], "http://127.0.0.1:8090/"): // TestDocsIntake runs it
				case words[0] != "export":
					t.Errorf("%s: nothing here knows whether this works: %q", name, words)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("found only %d commands", seen)
	}
}

// TestDocsHaveEachCommand: the reference of the commands has all that the program has, and no others. In a row what follows
// the first one stands in the place of its last word.
func TestDocsHaveEachCommand(t *testing.T) {
	var documented, there []string
	for _, row := range regexp.MustCompile("(?m)^\\| `worker [^|]*\\|").FindAllString(pages(t)["docs/commands.md"], -1) {
		before := ""
		for i, span := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row, -1) {
			name := before + span[1]
			if i == 0 {
				name = strings.TrimPrefix(name, "worker ")
				before = name[:strings.LastIndex(name, " ")+1]
			}
			documented = append(documented, name)
		}
	}
	for _, node := range commandTable(t).Model.Leaves(true) {
		there = append(there, node.Path())
	}
	slices.Sort(documented)
	slices.Sort(there)
	if diff := cmp.Diff(there, documented); diff != "" {
		t.Errorf("the commands of docs/commands.md (+) are not those that are there (-):\n%s", diff)
	}
}

func parses(t *testing.T, name string, args []string) {
	t.Helper()
	if _, err := commandTable(t).Parse(args); err != nil {
		t.Errorf("%s: worker %s: %v", name, strings.Join(args, " "), err)
	}
	for i, arg := range args {
		if switched, value, _ := strings.Cut(args[min(i+1, len(args)-1)], "="); args[0] == "simulate" && arg == "--set" {
			if err := defendersim.New(defendersim.Config{}).Set(map[string]string{switched: value}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// natsCommand checks that what is published is a request, on the subject of requests.
func natsCommand(t *testing.T, name string, words []string) {
	t.Helper()
	if words[1] != "pub" {
		return
	}
	subject, payload := words[len(words)-2], words[len(words)-1]
	_, invalid := message.Rules{Stream: "REMEDIATION"}.Parse(message.Delivery{Stream: "REMEDIATION", Sequence: 1, Data: []byte(payload)})
	if subject != "remediation.unrestrict" || invalid != nil {
		t.Errorf("%s: %q: %v", name, words, invalid)
	}
}

// simCommand sends the simulator what a page would.
func simCommand(t *testing.T, name string, words []string) {
	t.Helper()
	sim := defendersim.New(defendersim.Config{})
	defer sim.Close()
	method, body, url := http.MethodGet, "", words[len(words)-1]
	if at := slices.Index(words, "-d"); at > 0 {
		method, body = http.MethodPost, words[at+1]
	}
	if at := slices.Index(words, "-X"); at > 0 {
		method = words[at+1]
	}
	answer := httptest.NewRecorder()
	sim.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body)))
	if answer.Code/100 != 2 {
		t.Errorf("%s: %q: %d %s", name, words, answer.Code, answer.Body)
	}
}

// TestDocsVariables finds every variable that a page names in the reference. What deploy/nats has are the NATS server's own.
func TestDocsVariables(t *testing.T) {
	all := pages(t)
	reference := all["docs/configuration.md"]
	variable := regexp.MustCompile(`\b(?:WORKER|DEFENDER|NATS|LOG)_[A-Z]+(?:_[A-Z]+)*\b`)
	delete(all, "deploy/nats/README.md")
	for name, page := range all {
		for _, v := range variable.FindAllString(page, -1) {
			if !strings.Contains(reference, "| `"+v+"` |") {
				t.Errorf("%s names %s, which docs/configuration.md does not have", name, v)
			}
		}
	}
}

// TestDocsLinks follows the links between the pages, headings included.
func TestDocsLinks(t *testing.T) {
	all := pages(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for name, page := range all {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, anchor, _ := strings.Cut(m[1], "#")
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join(repository, path)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
			if anchor != "" && !slices.Contains(anchors(all[path]), anchor) {
				t.Errorf("%s links to %s, which has no such heading", name, m[1])
			}
		}
	}
}

// anchors are the names that GitHub gives a page's headings.
func anchors(page string) (names []string) {
	heading := regexp.MustCompile(`(?m)^#+ +(.*)$`)
	dropped := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		names = append(names, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

func TestDocsGo(t *testing.T) {
	for name, page := range pages(t) {
		for _, block := range blocks(page, "go") {
			if _, err := parser.ParseFile(token.NewFileSet(), name, block, parser.SkipObjectResolution); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestDocsNameTests: what the threat model and each promise are said to be tried by is there.
func TestDocsNameTests(t *testing.T) {
	var all strings.Builder
	for _, pattern := range []string{"*_test.go", "../../internal/*/*_test.go", "../../internal/*/*/*_test.go", "../../test/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	for _, page := range []string{"SECURITY.md", "docs/promises.md"} {
		names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`").FindAllStringSubmatch(pages(t)[page], -1)
		if len(names) < 30 {
			t.Errorf("%s names %d tests", page, len(names))
		}
		for _, name := range names {
			if !strings.Contains(all.String(), "\nfunc "+name[1]+"(") {
				t.Errorf("%s names %s, which is not there", page, name[1])
			}
		}
	}
}

// TestDocsPaths: what ARCHITECTURE.md, CONTRIBUTING.md and docs/promises.md name is there: files, folders, and in a row that
// has a file and then a function, that function in that file.
func TestDocsPaths(t *testing.T) {
	all := pages(t)
	path := regexp.MustCompile("`([A-Za-z0-9_.*/-]+\\.go|(?:cmd|docs|internal|test|tools|deploy|\\.ci)/[A-Za-z0-9_.*/-]+)`")
	row := regexp.MustCompile("(?m)\\| `([a-z0-9_/]+\\.go)` \\| `([A-Za-z]+)` \\|")
	for _, name := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md", "docs/promises.md"} {
		for _, m := range path.FindAllStringSubmatch(all[name], -1) {
			if !strings.Contains(m[1], "/") { // one of the decisions
				m[1] = "internal/remediation/" + m[1]
			}
			if found, err := filepath.Glob(filepath.Join(repository, m[1])); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which is not there (%v)", name, m[1], err)
			}
		}
		rows := row.FindAllStringSubmatch(all[name], -1)
		if name != "CONTRIBUTING.md" && len(rows) < 25 {
			t.Errorf("%s has %d rows with a file and a function", name, len(rows))
		}
		for _, m := range rows {
			source, err := os.ReadFile(filepath.Join(repository, m[1]))
			if err != nil || !regexp.MustCompile(`(?m)^func (\([^)]*\) )?`+m[2]+`\(`).Match(source) {
				t.Errorf("%s: %s has no function %s (%v)", name, m[1], m[2], err)
			}
		}
	}
}

// TestDocsArrows holds the packages of ARCHITECTURE.md against the imports. A row stands for the packages below it too.
func TestDocsArrows(t *testing.T) {
	const module = "example.com/unrestrict-worker/"
	drawn := map[string][]string{} // by folder
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| [^|]+ \\| ?([^|]*)\\|$").FindAllStringSubmatch(pages(t)["ARCHITECTURE.md"], -1) {
		drawn[m[1]] = []string{}
		for _, used := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(m[2], -1) {
			drawn[m[1]] = append(drawn[m[1]], used[1])
		}
	}
	rowOf := func(folder string) string {
		for ; folder != "."; folder = filepath.ToSlash(filepath.Dir(folder)) {
			if _, ok := drawn[folder]; ok {
				return folder
			}
		}
		return ""
	}
	there := map[string][]string{}
	for _, pattern := range []string{"cmd/*/*.go", "docs/*.go", "internal/*/*.go", "internal/*/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			folder, err := filepath.Rel(repository, filepath.Dir(file))
			if err != nil {
				t.Fatal(err)
			}
			folder = filepath.ToSlash(folder)
			row := rowOf(folder)
			if row == "" {
				t.Errorf("ARCHITECTURE.md does not have %s", folder)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := there[row]; !ok {
				there[row] = []string{}
			}
			for _, spec := range parsed.Imports {
				used, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module)
				if used = rowOf(used); ours && used != row {
					there[row] = append(there[row], filepath.Base(used))
				}
			}
			slices.Sort(there[row])
			there[row] = slices.Compact(there[row])
		}
	}
	if diff := cmp.Diff(there, drawn); diff != "" {
		t.Errorf("the packages of ARCHITECTURE.md (+) are not those that are there (-):\n%s", diff)
	}
}

// sources are the Go files of these patterns, tests left out.
func sources(t *testing.T, patterns ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[file] = string(source)
		}
	}
	return all
}

// TestDocsCauses: the runbook has every cause for which a message is redelivered, in its last section.
func TestDocsCauses(t *testing.T) {
	_, section, _ := strings.Cut(pages(t)["docs/runbook.md"], "## A request seems stuck\n")
	cause := regexp.MustCompile(`(?:wait|awaitQuota|failed|Later)\(.*"([a-z]+[A-Za-z]*)"[,)]|cause: "(\w+)"`)
	seen := 0
	for file, source := range sources(t, "../remediation/*.go", "../consumer/*.go") {
		for _, m := range cause.FindAllStringSubmatch(source, -1) {
			seen++
			if name := m[1] + m[2]; !strings.Contains(section, "`"+name+"`") {
				t.Errorf("%s: the runbook does not say what a message waits for whose cause is %s", file, name)
			}
		}
	}
	if seen < 20 {
		t.Errorf("found only %d causes", seen)
	}
}

// TestWordsOfTheField: pages, help and messages use the field's words: published, nakked, redelivered, dead-lettered.
func TestWordsOfTheField(t *testing.T) {
	ours := regexp.MustCompile(`(?i)\b(untold|tellers?|passages?|glances?|barred|hand(s|ed)? back|stumbles?|bur(y|ied)|unwraps?|orphaned|foreign|take(s|n)? back the intent|could not be told)\b`)
	texts := pages(t)
	for _, topic := range append(commandTable(t).Model.Leaves(true), nil) {
		args := []string{"help", "settings"}
		if topic != nil {
			args = append(strings.Fields(topic.Path()), "--help")
		}
		_, texts[strings.Join(args, " ")], _ = command(t, nil, args...)
	}
	literal := regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"`)
	for file, source := range sources(t, "../*/*.go", "../*/*/*.go") {
		texts[file] = strings.Join(literal.FindAllString(source, -1), "\n")
	}
	for name, text := range texts {
		for _, word := range ours.FindAllString(text, -1) {
			t.Errorf("%s says %q: use the field's word", name, word)
		}
	}
}

// TestDocsWrapped: prose is wrapped at 120 columns, so that a change shows as what it is.
func TestDocsWrapped(t *testing.T) {
	for name, page := range pages(t) {
		for line := range strings.Lines(fence.ReplaceAllString(page, "")) {
			line = strings.TrimRight(line, "\n")
			prose := strings.TrimLeft(line, " ")
			if strings.HasPrefix(prose, "|") || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "<!--") || !strings.Contains(prose, " ") {
				continue
			}
			if n := utf8.RuneCountInString(line); n > 120 {
				t.Errorf("%s has a line of %d columns: %s", name, n, line)
			}
		}
	}
}
