package cli

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
)

// commandLine is the command table with the settings as flags. It is for one command line.
type commandLine struct {
	*kong.Kong
	declared *cli
	table    *config.Table
	flags    reflect.Value // a struct of *string, one for each setting of the table; nil: not given
}

// newCommandLine builds the command table. Kong reads nothing but the command line, and settings as mere text: it would stop
// at the first mistake, and a command such as version must run whatever the mistakes.
func newCommandLine(stdout, stderr io.Writer) (*commandLine, error) {
	c := &commandLine{declared: &cli{}, table: config.NewTable()}
	var fields []reflect.StructField
	for i, s := range c.table.Settings {
		tag := fmt.Sprintf("name:%q hidden:\"\"", s.Flag) // from kong's own help; printHelp shows those that matter
		switch {
		case s.Secret:
			tag += fmt.Sprintf(" type:\"secret\" help:%q", s.Env)
		case s.Toggle:
			tag += " type:\"toggle\""
		}
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("Setting%d", i), Type: reflect.TypeFor[*string](), Tag: reflect.StructTag(tag)})
	}
	c.flags = reflect.New(reflect.StructOf(fields))
	parser, err := kong.New(c.declared,
		kong.Name("worker"),
		kong.Description("Lifts app execution restrictions with Microsoft Defender, on requests from NATS JetStream.\n\nTo see it work with nothing set up: worker demo"),
		kong.NoDefaultHelp(),
		kong.Vars{"outcomes": strings.Join(message.Outcomes(), ", ")},
		kong.Help(c.printHelp),
		kong.Writers(stdout, stderr),
		kong.NamedMapper("toggle", toggleMapper{}),
		kong.NamedMapper("secret", secretMapper{}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), durationMapper{}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "general", Title: "Flags of every command:"},
			{Key: "service", Title: "The service:"},
			{Key: "try", Title: "To try it out:"},
			{Key: "requests", Title: "Requests:"},
			{Key: "records", Title: "What was refused, and what was decided:"},
			{Key: "self", Title: "About this program:"},
		}),
		kong.Embed(c.flags.Interface()),
	)
	if err != nil {
		return nil, fmt.Errorf("command table: %w", err)
	}
	for _, node := range parser.Model.Leaves(true) {
		node.Detail = "Examples:\n\n  " + strings.Join(examples()[node.Path()], "\n  ")
	}
	c.Kong = parser
	return c, nil
}

// load makes the settings that a command uses. It returns the mistakes in those and in the --config file, and which
// variables look like settings and are none.
func (c *commandLine) load(groups, environ []string) (settings config.Settings, mistakes []config.Mistake, unknown []string) {
	given := config.Sources{Flags: map[string]string{}, Environ: environ, File: c.declared.Config}
	for i, s := range c.table.Settings {
		if text := c.flags.Elem().Field(i).Interface().(*string); text != nil {
			given.Flags[s.Flag] = *text
		}
	}
	settings, mistakes = c.table.Load(given)
	return settings, slices.DeleteFunc(mistakes, func(m config.Mistake) bool {
		return m.Group != "" && !slices.Contains(groups, m.Group)
	}), c.table.Unknown
}

// toggleMapper reads a setting that is true or false: the flag alone means
// true; the text of --flag=TEXT is checked later, with all the other settings.
type toggleMapper struct{}

// Decode is called by kong.
func (toggleMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	text := "true"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		text = ctx.Scan.Pop().String()
	}
	target.Set(reflect.ValueOf(&text))
	return nil
}

// IsBool is called by kong.
func (toggleMapper) IsBool() bool { return true }

// secretMapper refuses secrets on the command line, which others can read.
type secretMapper struct{}

// Decode is called by kong.
func (secretMapper) Decode(ctx *kong.DecodeContext, _ reflect.Value) error {
	env := ctx.Value.Help
	return fmt.Errorf("others on this machine could read it on the command line; use %s or %s_FILE", env, env)
}

// durationMapper reads the durations that a person types after a flag.
type durationMapper struct{}

// Decode is called by kong.
func (durationMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no duration; give a number with its unit, such as 90s, 15m, 36h or 2d", text)
	}
	target.SetInt(int64(d))
	return nil
}
