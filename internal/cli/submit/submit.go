// Package submit is `worker submit`. It reads rows, publishes them as requests, and follows their results.
package submit

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
	"example.com/unrestrict-worker/internal/service"
)

// signFor is how long a signed request without expiresAt is valid.
const signFor = 24 * time.Hour

// Run checks everything first. If anything is wrong, it publishes nothing.
func (c *Cmd) Run(ctx context.Context, env *session.Env) error {
	s, done, err := c.Prepare(ctx, env)
	if err != nil {
		return err
	}
	defer done()
	s.printRepeated()
	if c.ValidateOnly {
		fmt.Fprintf(env.Stdout, "%s in good form; nothing was published.\n", session.Count(s.rows, "request", "requests"))
		return nil
	}
	return s.CarryOut(ctx, c.Report)
}

// Prepare reads and checks. The caller calls done at the end.
func (c *Cmd) Prepare(ctx context.Context, env *session.Env) (_ *Submission, done func(), err error) {
	s := &Submission{env: env, wait: c.Wait, timeout: c.Timeout, canary: c.Canary, haltOn: c.HaltOn, signWith: c.SignWith, anyLane: c.Lane == ""}
	if s.canary > 0 && s.haltOn.text == "" {
		_ = s.haltOn.UnmarshalText([]byte(defaultLimit)) // always a valid limit
	}
	if s.Bulk, done, err = c.bulk(ctx, env); err != nil {
		return nil, nil, err
	}
	s.Collector = newCollector(s.Bulk.rules.Stream)
	s.Collector.signer = s.Bulk.signer
	if s.rows, err = s.Bulk.check(s.Collector); err != nil {
		done()
		return nil, nil, err
	}
	s.canary = min(s.canary, s.rows)
	return s, done, nil
}

// bulk makes the Bulk that the command line asks for. The caller calls done at the end.
func (c *Cmd) bulk(ctx context.Context, env *session.Env) (_ *Bulk, done func(), err error) {
	names := env.Settings.Names
	b := &Bulk{
		Batch: c.Batch, named: c.Batch != "", Lane: c.lane(), base: names.Subject,
		rules: message.Rules{Stream: names.Stream, OwnSubjects: broker.Names(names).OwnSubjects()},
	}
	if err := checkBatch(c.Batch, names.Stream); err != nil {
		return nil, nil, err
	}
	if err := c.ReadSeed(b); err != nil {
		return nil, nil, err
	}
	if c.Machine != "" {
		c.single(b)
		return b, func() {}, nil
	}
	in, err := openInput(ctx, c.File, env.Stdin)
	if err != nil {
		return nil, nil, err
	}
	unsigned := b.rules
	unsigned.Signers = nil // a row is signed only once it is complete
	b.name, b.Rows = in.name, in.rows(c.Comment, unsigned)
	if !b.named {
		b.Batch = in.digest
	}
	return b, in.close, nil
}

// single makes b the one request that the flags describe.
func (c *Cmd) single(b *Bulk) {
	b.Single, b.known = c.ID, c.ID != ""
	if !b.known {
		b.Single = service.RandomID()
	}
	b.Rows = slices.Values([]rows.Row{{Line: 1, Message: rows.Message{
		ID: b.Single, MachineID: c.Machine, Comment: c.Comment, Ticket: c.Ticket, RequestedBy: c.RequestedBy,
		ExpiresAt: c.ExpiresAt, ReplyTo: c.ReplyTo,
	}}})
}

// ReadSeed reads the seed to sign with, and makes the rules those of a worker that trusts this signer alone.
func (c *Cmd) ReadSeed(b *Bulk) (err error) {
	if c.SignWith == "" {
		return nil
	}
	if b.seed, err = config.ReadSmall(c.SignWith); err != nil {
		return config.BadInput("--sign-with %s: %w", c.SignWith, err)
	}
	if b.signer, _, err = message.Sign(b.seed, b.subject(), nil); err != nil {
		return config.BadInput("--sign-with %s: %w", c.SignWith, err)
	}
	if b.rules.Signers, err = message.ParseSigners(b.signer); err != nil {
		return config.BadInput("--sign-with %s: %w", c.SignWith, err)
	}
	b.Expires = time.Now().Add(signFor).UTC().Format(time.RFC3339)
	return nil
}

// Cmd is `worker submit`.
type Cmd struct {
	Machine      string        `placeholder:"ID" help:"Publish one request: the machine's id, 40 hexadecimal digits; needs --comment."`
	Comment      string        `placeholder:"TEXT" help:"The comment; with --file that of all rows, if they have none of their own."`
	File         string        `placeholder:"FILE" help:"Publish many: a .csv file (its first line names fields in any order: machineId, comment, id, requestedBy, ticket, batch, expiresAt, replyTo, metadata.KEY), a plain list of machine ids with --comment, a .jsonl file, or - for standard input, any of them."`
	ID           string        `name:"id" placeholder:"ID" help:"With --machine: the request's id, which is carried out once, however often it is published, until 7 days after its end (default: one is made)."`
	Ticket       string        `placeholder:"TEXT" help:"With --machine: the ticket, echoed in results."`
	RequestedBy  string        `placeholder:"NAME" help:"With --machine: who asks for it, echoed in results."`
	ExpiresAt    string        `placeholder:"TIME" help:"With --machine: not carried out after this time, such as 2026-11-24T18:00:00Z."`
	Lane         string        `placeholder:"LANE" help:"Who goes first: urgent, normal or bulk (default: normal for one request, bulk for a file)."`
	ReplyTo      string        `placeholder:"SUBJECT" help:"With --machine: a subject that gets this request's results too."`
	Batch        string        `placeholder:"NAME" help:"Name of the batch, from which with the line each row's id is made (default: a digest of the file's content). The same file under the same name never has a row carried out twice."`
	Wait         bool          `help:"Follow the results to their final outcome, those of an earlier run of the same file too. Of one machine each is printed as it comes; a file ends with a table of counts and the failed rows. Exit status 1 if some did not succeed."`
	Canary       int           `placeholder:"N" help:"With --file: publish the first N rows, wait for their final results, and go on with the others only while no more failed than --halt-on says."`
	HaltOn       Limit         `placeholder:"N|N%" help:"With --wait or --canary: halt the batch once more rows failed (failed, timedOut, rejected, abandoned) than this number, or than this share of those that are final, such as 25 or 5% (default: 20% with --canary, else never). Exit status 1; the same command goes on after the batch is resumed."`
	Timeout      time.Duration `placeholder:"DURATION" help:"With --wait or --canary: stop waiting after this long, such as 10m or 2d, with exit status 1 (default: none)."`
	Report       string        `placeholder:"FILE" help:"With --wait: write every row with its outcome to this CSV file."`
	ValidateOnly bool          `help:"Check everything and publish nothing; needs no broker."`
	SignWith     string        `placeholder:"FILE" help:"Sign the requests with the nkey seed in this file. Those without expiresAt expire in 24 hours."`
}

// Validate is called by kong. It names all that is wrong with the flags, as check does for the rows of a file.
func (c Cmd) Validate() error {
	var wrong []string
	for _, rule := range c.rules() {
		if rule.broken {
			wrong = append(wrong, rule.text)
		}
	}
	wrong = append(wrong, c.wrongTexts()...)
	switch len(wrong) {
	case 0:
		return nil
	case 1:
		return config.BadInput("%s", wrong[0])
	}
	return config.BadInput("%d mistakes; nothing was published:\n  %s", len(wrong), strings.Join(wrong, "\n  "))
}

// flagRule is a rule for flags that depend on each other, and the error if it is broken.
type flagRule struct {
	broken bool
	text   string
}

func (c Cmd) rules() []flagRule {
	waits := c.Wait || c.Canary > 0
	return []flagRule{
		{(c.Machine == "") == (c.File == ""), "give either --machine with --comment, or --file"},
		{c.Machine != "" && c.Comment == "", "--machine needs --comment"},
		{c.File != "" && c.ofOne() != "", c.ofOne() + " goes with --machine; in a file it is a column of each row"},
		{c.Canary != 0 && c.File == "", "--canary needs --file"},
		{c.Canary < 0, "--canary: give how many rows go first, such as 10"},
		{c.HaltOn.text != "" && c.File == "", "--halt-on needs --file"},
		{c.HaltOn.text != "" && c.File != "" && !waits, "--halt-on needs --wait or --canary: without waiting there are no results to halt on"},
		{c.Timeout != 0 && !waits, "--timeout needs --wait or --canary"},
		{c.Timeout < 0, "--timeout: give how long to wait, such as 10m"},
		{c.Report != "" && !c.Wait, "--report needs --wait"},
		{c.ValidateOnly && waits, "--validate-only publishes nothing to wait for; leave out --wait and --canary"},
	}
}

// wrongTexts returns what is wrong with the values of flags. Those of a request are checked by the rules of its fields,
// under the names of the flags.
func (c Cmd) wrongTexts() (wrong []string) {
	if c.Lane != "" {
		if _, err := message.ParseLane(c.Lane); err != nil {
			wrong = append(wrong, "--lane: "+err.Error())
		}
	}
	for flag, value := range c.texts() {
		if !utf8.ValidString(value) {
			wrong = append(wrong, flag+": is not UTF-8; encode it as UTF-8")
		}
	}
	if c.Machine == "" {
		return wrong
	}
	for _, f := range []struct{ flag, field, text string }{
		{"--machine", "machineId", c.Machine},
		{"--comment", "comment", c.Comment},
		{"--expires-at", "expiresAt", c.ExpiresAt},
		{"--reply-to", "replyTo", c.ReplyTo},
	} {
		if f.text == "" {
			continue
		}
		if err := message.CheckField(f.field, f.text); err != nil {
			wrong = append(wrong, f.flag+": "+err.Error())
		}
	}
	if expires, err := time.Parse(time.RFC3339, c.ExpiresAt); err == nil && time.Now().After(expires) {
		wrong = append(wrong, fmt.Sprintf("--expires-at: %s has passed; give a time to come", c.ExpiresAt))
	}
	return wrong
}

// lane is the one given, otherwise normal for one request and bulk for a file.
func (c Cmd) lane() message.Lane {
	switch {
	case c.Lane != "":
		return message.Lane(c.Lane)
	case c.File != "":
		return message.LaneBulk
	}
	return message.LaneNormal
}

// ofOne returns the first flag given that describes one request, "" if there is none.
func (c Cmd) ofOne() string {
	for flag, value := range c.texts() {
		if value != "" && flag != "--comment" {
			return flag
		}
	}
	return ""
}

// texts yields the flags that become a request's texts, and their values.
func (c Cmd) texts() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = yield("--comment", c.Comment) && yield("--id", c.ID) && yield("--ticket", c.Ticket) &&
			yield("--requested-by", c.RequestedBy) && yield("--expires-at", c.ExpiresAt) && yield("--reply-to", c.ReplyTo)
	}
}
