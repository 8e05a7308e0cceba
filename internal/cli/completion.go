package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/internal/cli/session"
)

// CompletionCmd is `worker completion`.
type CompletionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"One of bash, zsh, fish. To load it: source <(worker completion bash), the same with zsh, or worker completion fish | source."`
}

// Run prints the completion script.
func (c *CompletionCmd) Run(_ context.Context, env *session.Env, line *commandLine) error {
	commands := completions(line, line.Model.Node, "")
	var b strings.Builder
	switch c.Shell {
	case "bash":
		bashCompletion(&b, commands)
	case "zsh":
		b.WriteString("#compdef worker\nautoload -U +X bashcompinit && bashcompinit\n")
		bashCompletion(&b, commands)
	case "fish":
		fishCompletion(&b, commands)
	}
	_, err := io.WriteString(env.Stdout, b.String())
	return err
}

// completed is a command and what can be typed after it.
type completed struct {
	path     string // " deadletter list"; empty for worker itself
	words    []word // subcommands, or the values of its argument
	flags    []word
	children []completed
}

type word struct {
	text, help string
	values     []string // of a flag that has a list of them
	alone      bool     // a flag without a value
}

// completions collects a command and those below it, with the settings that
// each uses.
func completions(app *commandLine, node *kong.Node, path string) completed {
	c := completed{path: path}
	for _, child := range node.Children {
		c.words = append(c.words, word{text: child.Name, help: child.Help})
		c.children = append(c.children, completions(app, child, path+" "+child.Name))
	}
	for _, argument := range node.Positional {
		if argument.Enum != "" {
			for _, value := range argument.EnumSlice() {
				c.words = append(c.words, word{text: value})
			}
		}
	}
	for _, flag := range slices.Concat(node.AllFlags(true)...) {
		f := word{text: "--" + flag.Name, help: flag.Help, alone: flag.IsBool()}
		if flag.Enum != "" {
			f.values = flag.EnumSlice()
		}
		c.flags = append(c.flags, f)
	}
	selected := node
	if node == app.Model.Node {
		selected = nil
	}
	for _, s := range app.used(selected) {
		if !s.Secret {
			c.flags = append(c.flags, word{text: "--" + s.Flag, help: s.Help, values: s.OneOf, alone: s.Toggle})
		}
	}
	return c
}

// each calls visit for the command and all below it.
func (c completed) each(visit func(completed)) {
	visit(c)
	for _, child := range c.children {
		child.each(visit)
	}
}

func texts(words []word) string {
	var all []string
	for _, w := range words {
		all = append(all, w.text)
	}
	return strings.Join(all, " ")
}

// bashCompletion writes a function that finds the command typed so far and
// offers its words. A flag's value without a list is left to file names.
func bashCompletion(w io.Writer, root completed) {
	values := map[string]string{} // by flag
	fmt.Fprint(w, `_worker() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= i
    if [[ $cur == "=" ]]; then cur=; elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$command ${COMP_WORDS[i]}" in
`)
	root.each(func(c completed) {
		if c.path != "" {
			fmt.Fprintf(w, "            %q) command=%q ;;\n", c.path, c.path)
		}
		for _, f := range c.flags {
			if !f.alone || f.values != nil {
				values[f.text] = strings.Join(f.values, " ")
			}
		}
	})
	fmt.Fprint(w, "        esac\n    done\n    COMPREPLY=()\n    case \"$prev\" in\n")
	for _, flag := range slices.Sorted(maps.Keys(values)) {
		if values[flag] == "" {
			fmt.Fprintf(w, "        %s) return ;;\n", flag)
		} else {
			fmt.Fprintf(w, "        %s) COMPREPLY=($(compgen -W %q -- \"$cur\")); return ;;\n", flag, values[flag])
		}
	}
	fmt.Fprint(w, "    esac\n    case \"$command\" in\n")
	root.each(func(c completed) {
		fmt.Fprintf(w, "        %q) words=%q ;;\n", c.path, strings.TrimSpace(texts(c.words)+" "+texts(c.flags)))
	})
	fmt.Fprint(w, "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _worker worker\n")
}

// fishCompletion writes one line for each word, with the command after which
// it is offered as its condition.
func fishCompletion(w io.Writer, root completed) {
	root.each(func(c completed) {
		var conditions []string
		for name := range strings.FieldsSeq(c.path) {
			conditions = append(conditions, "__fish_seen_subcommand_from "+name)
		}
		if len(c.words) > 0 {
			conditions = append(conditions, "not __fish_seen_subcommand_from "+texts(c.words))
		}
		when := fishQuote(strings.Join(conditions, "; and "))
		for _, sub := range c.words {
			fmt.Fprintf(w, "complete -c worker -f -n %s -a %s -d %s\n", when, sub.text, fishQuote(sub.help))
		}
		for _, f := range c.flags {
			fmt.Fprintf(w, "complete -c worker -n %s -l %s", when, strings.TrimPrefix(f.text, "--"))
			switch {
			case f.values != nil:
				fmt.Fprintf(w, " -x -a %s", fishQuote(strings.Join(f.values, " ")))
			case !f.alone:
				fmt.Fprint(w, " -r")
			}
			fmt.Fprintf(w, " -d %s\n", fishQuote(firstSentence(f.help)))
		}
	})
}

func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

func firstSentence(text string) string {
	first, _, _ := strings.Cut(text, ". ")
	return strings.TrimSuffix(first, ".")
}
