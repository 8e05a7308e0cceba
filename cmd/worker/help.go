package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"
)

// helpFlag prints the help of the command it stands behind. Kong's own one
// would leave the process.
type helpFlag bool

var errHelpShown = errors.New("help shown")

// BeforeReset is called by kong, before anything required is missed.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelpShown
}

// printHelp prints kong's help and then the settings that the command uses,
// each with its variable and default.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	node := ctx.Selected()
	options.Compact = true
	options.WrapUpperBound = helpWidth
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	used := usedSettings(ctx.Model, node)
	if node == nil {
		printSettingTable(ctx.Stdout, used)
		fmt.Fprintln(ctx.Stdout, "\nRun \"worker COMMAND --help\" for more on a command and what its settings mean.")
		return nil
	}
	if len(used) == 0 {
		return nil
	}
	fmt.Fprintln(ctx.Stdout, "\nSettings: flag, environment variable, meaning. A flag comes before its variable, then the file\nof --config (the key is the flag with _ for -), then the default.")
	for i, s := range used {
		if i == 0 || used[i-1].group() != s.group() {
			fmt.Fprintf(ctx.Stdout, "\n%s\n", s.flag.Group.Title)
			writeWrapped(ctx.Stdout, "  ", s.flag.Group.Description)
		}
		printSetting(ctx.Stdout, s)
	}
	return nil
}

// groupsOf lists the groups of settings that a command uses.
func groupsOf(node *kong.Node, app *kong.Application) []string {
	var all []string
	for _, s := range settingsOf(app) {
		if !slices.Contains(all, s.group()) {
			all = append(all, s.group())
		}
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

// usedSettings lists the settings that a command uses; all for no command.
func usedSettings(app *kong.Application, node *kong.Node) []*setting {
	groups := groupsOf(node, app)
	return slices.DeleteFunc(settingsOf(app), func(s *setting) bool { return !slices.Contains(groups, s.group()) })
}

func printSettingTable(w io.Writer, settings []*setting) {
	fmt.Fprint(w, "\nSettings:\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", s.flagForm(), s.env, s.fallback())
	}
	_ = table.Flush()
}

func printSetting(w io.Writer, s *setting) {
	fmt.Fprintf(w, "  %-44s  %s\n", s.flagForm(), s.env)
	text := s.flag.Help
	if list := s.oneOf(); list != nil {
		text += " One of " + strings.Join(list, ", ") + "."
	}
	if s.fallback() != "none" {
		text += " Default: " + s.fallback() + "."
	}
	writeWrapped(w, "        ", text)
}

// flagForm is the setting's flag as the help shows it.
func (s *setting) flagForm() string {
	switch s.flag.Tag.Type {
	case "secret":
		return "(no flag)"
	case "toggle":
		return "--" + s.flag.Name + "[=false]"
	}
	return "--" + s.flag.Name + "=VALUE"
}

const helpWidth = 100

// writeWrapped writes text in lines of at most helpWidth, each after indent.
func writeWrapped(w io.Writer, indent, text string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > helpWidth {
			fmt.Fprintln(w, indent+line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	if line != "" {
		fmt.Fprintln(w, indent+line)
	}
}

// hint says where to find out what a mistyped command should have been.
func hint(err error) string {
	command := "worker"
	if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context != nil && parse.Context.Selected() != nil {
		command = parse.Context.Selected().FullPath()
	}
	return fmt.Sprintf("Run %q for what there is.", command+" --help")
}
