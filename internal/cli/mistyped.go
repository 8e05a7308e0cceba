package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/internal/config"
)

// mistyped turns kong's error about a command line into one for people: what is wrong, and where to look.
func mistyped(err error) error {
	var node *kong.Node
	if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context != nil {
		node = parse.Context.Selected()
	}
	command := "worker"
	if node != nil {
		command = node.FullPath()
	}
	text := err.Error()
	if m := unexpected.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("there is no command %q%s", m[1], strings.Replace(m[2], ",", ";", 1))
		if node != nil && node.Leaf() {
			text = fmt.Sprintf("%q is one argument too many; leave it out, or quote a text of several words", m[1])
		}
	}
	for _, r := range rewordings() {
		if r.of.MatchString(text) {
			text = r.of.ReplaceAllString(text, r.as)
			break
		}
	}
	text = strings.ReplaceAll(text, `","`, ", ")
	if node != nil && strings.HasPrefix(text, "<") && strings.HasSuffix(text, " is missing") {
		text += fmt.Sprintf("; give it, as in %s", examples()[node.Path()][0])
	}
	return config.BadInput("%s\nRun %q for what there is.", text, command+" --help")
}

// unexpected matches the argument, and after it what it may have been meant to be.
var unexpected = regexp.MustCompile(`^unexpected argument (\S+?)(, did you mean .*)?$`)

// rewording is an error of kong's, which names its types and tokens, and the text for people instead.
type rewording struct {
	of *regexp.Regexp
	as string
}

// rewordings returns one for each error that can occur. TestMistyped has a command line for each.
func rewordings() []rewording {
	return []rewording{
		{regexp.MustCompile(`^(--[\w-]+): (?:expected \w+ value but got "EOL" \(<EOL>\)|missing value, expecting .*)$`), "$1: its value is missing; give it as $1=VALUE"},
		{regexp.MustCompile(`^(--[\w-]+): expected \w+ value but got "(.*)" \(.*\); perhaps try .*$`), "$1: its value is missing, for $2 is a flag; give it as $1=VALUE"},
		{regexp.MustCompile(`^(--[\w-]+): expected a valid \d+ bit u?int but got (".*")$`), "$1: $2 is no whole number; give one, such as 5"},
		{regexp.MustCompile(`^(--[\w-]+): bool value must be .* but got (".*")$`), "$1: $2 is neither true nor false; give one of the two"},
		{regexp.MustCompile(`^(\S+) must be one of "(.*)" but got (".*")$`), "$1: $3 is none of $2; give one of these"},
		{regexp.MustCompile(`^expected "(<.*>)"$`), "$1 is missing"},
		{regexp.MustCompile(`^expected one of (".*")$`), "say what to do: one of $1"},
		{regexp.MustCompile(`^missing flags: (.*)$`), "a flag is missing: $1"},
	}
}
