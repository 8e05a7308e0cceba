package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
)

// helpFlag prints the help of the command that it follows. Kong's own flag
// would end the process.
type helpFlag bool

// errShown ends the parsing after a flag such as --help has printed its text.
var errShown = errors.New("shown")

// BeforeReset is called by kong, before it checks what is required.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errShown
}

// HelpCmd is `worker help`.
type HelpCmd struct {
	Topic []string `arg:"" optional:"" help:"A command, or settings for what each setting means."`
}

// Run prints what is asked for.
func (c *HelpCmd) Run(_ context.Context, env *session.Env) error {
	line, err := newCommandLine(env.Stdout, env.Stderr)
	if err != nil {
		return err
	}
	switch {
	case len(c.Topic) == 0:
		return line.printOverview()
	case slices.Equal(c.Topic, []string{"settings"}):
		printSettings(env.Stdout, line.table.Settings)
		return nil
	}
	_, err = line.Parse(append(slices.Clone(c.Topic), "--help"))
	if errors.Is(err, errShown) {
		return nil
	}
	return mistyped(err)
}

// printOverview prints all commands, on one page.
func (c *commandLine) printOverview() error {
	ctx, err := kong.Trace(c.Kong, nil)
	if err != nil {
		return err
	}
	if err := kong.DefaultHelpPrinter(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: helpWidth, ValueFormatter: kong.DefaultHelpValueFormatter}, ctx); err != nil {
		return err
	}
	_, err = fmt.Fprint(ctx.Stdout, "\n"+moreHelp)
	return err
}

// printHelp prints kong's help, and then the settings that the command uses. The table of those would hide the rest of the
// help: only the commands that have settings of their own show it.
func (c *commandLine) printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	node := ctx.Selected()
	options.Compact = true
	options.WrapUpperBound = helpWidth
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	used := c.used(node)
	switch {
	case len(used) == 0:
		return nil
	case node == nil:
		if err := tabulate(ctx.Stdout, used); err != nil {
			return err
		}
		_, err := fmt.Fprint(ctx.Stdout, "\n"+moreHelp)
		return err
	case len(used) == len(c.table.Settings):
		_, err := fmt.Fprint(ctx.Stdout, "\nSettings: all of them; see \"worker help settings\".\n")
		return err
	case !slices.ContainsFunc(used, func(s *config.Setting) bool { return !groupOf(s).Shared }):
		var names []string
		for _, s := range used {
			names = append(names, s.Env)
		}
		fmt.Fprint(ctx.Stdout, "\nSettings, of which \"worker help settings\" says flag, default and meaning:\n")
		writeWrapped(ctx.Stdout, "  ", strings.Join(names, " "))
		return nil
	}
	return tabulate(ctx.Stdout, used)
}

// tabulate lists settings with flag, variable and default.
func tabulate(w io.Writer, settings []*config.Setting) error {
	fmt.Fprint(w, "\nSettings: flag, variable, default. \"worker help settings\" says what each means.\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", s.FlagForm(), s.Env, s.Fallback())
	}
	return table.Flush()
}

const moreHelp = "Run \"worker COMMAND --help\" for its flags and examples, \"worker help settings\" for what each setting means.\n"

// groupsOf lists the groups of settings that a command uses; all for no command.
func groupsOf(node *kong.Node) []string {
	var all []string
	for _, group := range config.Groups() {
		all = append(all, group.Key)
	}
	if node == nil {
		return all
	}
	for ; node != nil; node = node.Parent {
		if groups := strings.Fields(node.Tag.Get("settings")); slices.Equal(groups, []string{"all"}) {
			return all
		} else if len(groups) > 0 {
			return groups
		}
	}
	return nil
}

// groupOf returns a setting's group.
func groupOf(s *config.Setting) config.Group {
	groups := config.Groups()
	return groups[slices.IndexFunc(groups, func(g config.Group) bool { return g.Key == s.Group })]
}

// used lists the settings that a command uses; all for no command.
func (c *commandLine) used(node *kong.Node) []*config.Setting {
	groups := groupsOf(node)
	return slices.DeleteFunc(slices.Clone(c.table.Settings), func(s *config.Setting) bool { return !slices.Contains(groups, s.Group) })
}

// printSettings prints what each setting means.
func printSettings(w io.Writer, settings []*config.Setting) {
	fmt.Fprintln(w, "Settings: flag, environment variable, meaning. A flag comes before its variable, then the file\nof --config (the key is the flag with _ for -), then the context of NATS_CONTEXT, then the default.")
	for i, s := range settings {
		if i == 0 || settings[i-1].Group != s.Group {
			fmt.Fprintf(w, "\n%s\n", groupOf(s).Title)
			writeWrapped(w, "  ", groupOf(s).Description)
		}
		printSetting(w, s)
	}
}

func printSetting(w io.Writer, s *config.Setting) {
	fmt.Fprintf(w, "  %-44s  %s\n", s.FlagForm(), s.Env)
	text := s.Help
	if list := s.OneOf; list != nil {
		text += " One of " + strings.Join(list, ", ") + "."
	}
	if s.Fallback() != "none" {
		text += " Default: " + s.Fallback() + "."
	}
	writeWrapped(w, "        ", text)
}

const helpWidth = 100

// writeWrapped writes text in lines of at most helpWidth, each after indent.
func writeWrapped(w io.Writer, indent, text string) {
	if text != "" {
		fmt.Fprintln(w, indent+strings.Join(session.Wrap(text, helpWidth-len(indent)), "\n"+indent))
	}
}
