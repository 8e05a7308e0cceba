package main

import (
	"context"
	"iter"
	"time"
)

// cli is the command table. The tag settings names the groups of settings that
// a command uses: those are shown in its help, offered by completion, and
// checked before it runs; mistakes in others are none of its business. Only a
// command tagged withmistakes runs with any.
type cli struct {
	HelpFlag    helpFlag    `name:"help" short:"h" group:"general" help:"Show this help."`
	VersionFlag versionFlag `name:"version" group:"general" help:"Show the version."`
	Config      *string     `placeholder:"FILE" group:"general" help:"YAML file with settings; flags and environment come first."`

	Run         RunCmd         `cmd:"" settings:"all" saysunknown:"" help:"Run the service until SIGINT or SIGTERM: consume, call, follow, publish."`
	Demo        DemoCmd        `cmd:"" settings:"embedded admin log" help:"Show the whole system on loopback, with nothing to set up."`
	Simulate    SimulateCmd    `cmd:"" settings:"log" help:"Simulate the Defender API and its token endpoint."`
	Submit      SubmitCmd      `cmd:"" settings:"broker embedded names budget log" help:"Publish one request, or many from a file."`
	Results     ResultsCmd     `cmd:"" settings:"broker embedded names log" help:"Follow the results, one line each."`
	Deadletter  DeadletterCmd  `cmd:"" settings:"broker embedded names log" help:"Look at dead letters, replay or drop them."`
	Audit       AuditCmd       `cmd:"" settings:"broker embedded log" help:"Verify the audit trail, or export it."`
	Status      StatusCmd      `cmd:"" settings:"broker embedded names budget log" help:"Show queue, budget, followed actions and whether it is paused."`
	Pause       PauseCmd       `cmd:"" settings:"broker embedded names provisioning log" help:"Stop consumption on every replica; nothing in flight is lost."`
	Resume      ResumeCmd      `cmd:"" settings:"broker embedded names log" help:"Start consumption again on every replica."`
	Check       CheckCmd       `cmd:"" settings:"all" withmistakes:"" saysunknown:"" help:"Prove the set-up step by step, and say what to do about each failure."`
	Schema      SchemaCmd      `cmd:"" help:"Print the JSON Schema of requests, results or audit records, or the AsyncAPI document."`
	Why         WhyCmd         `cmd:"" settings:"broker embedded names budget log" help:"Tell everything that happened to one request and what it waits for."`
	Help        HelpCmd        `cmd:"" help:"Show what there is, a command's help, or what each setting means."`
	Healthcheck HealthcheckCmd `cmd:"" settings:"admin" help:"Ask /readyz of the worker on this machine."`
	Completion  CompletionCmd  `cmd:"" help:"Print completion for a shell."`
	Version     VersionCmd     `cmd:"" help:"Print version, commit and Go version."`
}

// RunCmd is `worker run`.
type RunCmd struct{}

// DemoCmd is `worker demo`.
type DemoCmd struct {
	Stay bool `help:"Keep everything running afterwards, at --embedded-addr and --admin-addr (a free port where one is taken), and print the lines to copy for publishing by hand."`
}

// SimulateCmd is `worker simulate`.
type SimulateCmd struct {
	Addr string `placeholder:"HOST:PORT" default:"127.0.0.1:8443" help:"Where to listen (default: ${default})."`
	TLS  bool   `name:"tls" help:"Serve TLS with a CA and certificate made for it; prints the path of the CA."`
	Dir  string `placeholder:"DIR" help:"Put its files (token, or with --tls ca.pem) there, and leave them (default: a temporary folder)."`
}

// Run serves the simulated API until the context ends.
func (c *SimulateCmd) Run(ctx context.Context, env *Env) error {
	if err := requireLoopback(c.Addr); err != nil {
		return badInput("%w", err)
	}
	log, _ := env.Logger()
	return runSimulate(ctx, SimulateOptions{Addr: c.Addr, TLS: c.TLS, Dir: c.Dir}, env.Stdout, log)
}

// SubmitCmd is `worker submit`.
type SubmitCmd struct {
	Machine      string        `placeholder:"ID" help:"Publish one request: the machine's id, 40 hexadecimal digits; needs --comment."`
	Comment      string        `placeholder:"TEXT" help:"The comment; with --file that of all rows, if they have none of their own."`
	File         string        `placeholder:"FILE" help:"Publish many: a .csv file (its first line names fields in any order: machineId, comment, id, requestedBy, ticket, batch, expiresAt, replyTo, metadata.KEY), a plain list of machine ids with --comment, a .jsonl file, or - for standard input, any of them."`
	ID           string        `name:"id" placeholder:"ID" help:"With --machine: the request's id, which is carried out once however often it is published (default: one is made)."`
	Ticket       string        `placeholder:"TEXT" help:"With --machine: the ticket, echoed in results."`
	RequestedBy  string        `placeholder:"NAME" help:"With --machine: who asks for it, echoed in results."`
	ExpiresAt    string        `placeholder:"TIME" help:"With --machine: not carried out after this time, such as 2026-11-24T18:00:00Z."`
	ReplyTo      string        `placeholder:"SUBJECT" help:"With --machine: a subject that gets this request's results too."`
	Batch        string        `placeholder:"NAME" help:"Name of the batch, from which with the line each row's id is made (default: a digest of the file's content). The same file under the same name never has a row carried out twice."`
	Wait         bool          `help:"Follow the results to their final outcome, those of an earlier run of the same file too; end with a table of counts and the failed rows. Exit status 1 if some did not succeed."`
	Timeout      time.Duration `placeholder:"DURATION" help:"With --wait: stop waiting after this long, such as 10m or 2d, with exit status 1 (default: none)."`
	Report       string        `placeholder:"FILE" help:"With --wait: write every row with its outcome to this CSV file."`
	ValidateOnly bool          `help:"Check everything and publish nothing; needs no broker."`
	SignWith     string        `placeholder:"FILE" help:"Sign the requests with the nkey seed in this file. Those without expiresAt expire in 24 hours."`
}

// Validate is called by kong.
func (c SubmitCmd) Validate() error {
	switch {
	case (c.Machine == "") == (c.File == ""):
		return badInput("give either --machine with --comment, or --file")
	case c.Machine != "" && c.Comment == "":
		return badInput("--machine needs --comment")
	case c.File != "" && c.ofOne() != "":
		return badInput("%s goes with --machine; in a file it is a column of each row", c.ofOne())
	case c.Timeout != 0 && !c.Wait:
		return badInput("--timeout needs --wait")
	case c.Timeout < 0:
		return badInput("--timeout: give how long to wait, such as 10m")
	case c.Report != "" && !c.Wait:
		return badInput("--report needs --wait")
	case c.ValidateOnly && c.Wait:
		return badInput("--validate-only publishes nothing to wait for; leave out --wait")
	}
	return nil
}

// ofOne is the first flag given that describes one request, "" if there is none.
func (c SubmitCmd) ofOne() string {
	for flag, value := range c.texts() {
		if value != "" && flag != "--comment" {
			return flag
		}
	}
	return ""
}

// texts are the flags that become a request's texts, and their values.
func (c SubmitCmd) texts() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = yield("--comment", c.Comment) && yield("--id", c.ID) && yield("--ticket", c.Ticket) &&
			yield("--requested-by", c.RequestedBy) && yield("--expires-at", c.ExpiresAt) && yield("--reply-to", c.ReplyTo)
	}
}

// ResultsCmd is `worker results`.
type ResultsCmd struct {
	ID      string        `name:"id" placeholder:"ID" help:"Only results of this request, and of messages that claimed its id."`
	Ticket  string        `placeholder:"TICKET" help:"Only results of requests with this ticket."`
	Batch   string        `placeholder:"NAME" help:"Only results of this batch."`
	Machine string        `placeholder:"ID" help:"Only results of this machine."`
	Outcome []string      `placeholder:"OUTCOME" enum:"submitted,succeeded,failed,timedOut,cancelled,rejected,abandoned,dryRun" help:"Only results with one of these outcomes: submitted, succeeded, failed, timedOut, cancelled, rejected, abandoned, dryRun."`
	Since   time.Duration `placeholder:"DURATION" help:"Only results of the last so long, such as 1h or 2d (default: from the oldest kept)."`
	Follow  bool          `default:"true" negatable:"" help:"Go on with what comes later, until SIGINT (default: ${default}); --follow=false ends at the present."`
	JSON    bool          `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (c ResultsCmd) Validate() error {
	if c.Since < 0 {
		return badInput("--since: give how long ago, such as 1h")
	}
	return nil
}

// DeadletterCmd is `worker deadletter`.
type DeadletterCmd struct {
	List   DeadletterListCmd   `cmd:"" help:"List the dead letters."`
	Show   DeadletterShowCmd   `cmd:"" help:"Show dead letters with their payload and headers."`
	Replay DeadletterReplayCmd `cmd:"" help:"Publish the requests of dead letters again, each as its next run."`
	Drop   DeadletterDropCmd   `cmd:"" help:"Delete dead letters."`
}

// DeadletterListCmd is `worker deadletter list`.
type DeadletterListCmd struct {
	Code string `placeholder:"CODE" help:"Only dead letters with this error code."`
	JSON bool   `name:"json" help:"One JSON object a line."`
}

// DeadletterShowCmd is `worker deadletter show`.
type DeadletterShowCmd struct{ DeadletterSelection }

// DeadletterReplayCmd is `worker deadletter replay`.
type DeadletterReplayCmd struct {
	DeadletterSelection
	Reason string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
	Yes    bool   `help:"Do not ask, as it does on a terminal alone."`
}

// DeadletterDropCmd is `worker deadletter drop`.
type DeadletterDropCmd struct {
	DeadletterSelection
	Reason string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
	Yes    bool   `help:"Do not ask before several are dropped; needed for that where there is no terminal."`
}

// DeadletterSelection says which dead letters are meant: those that match
// everything given. At least one thing is given, so that all are meant only
// where --all says it.
type DeadletterSelection struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Request ids."`
	All      bool     `help:"All dead letters."`
	Code     string   `placeholder:"CODE" help:"All dead letters with this error code."`
	Seq      uint64   `placeholder:"SEQ" help:"The dead letter with this sequence in the dead-letter stream: tells several of one id apart."`
	SignedBy string   `placeholder:"NAME" help:"Of those, only requests of this signer or client."`
	JSON     bool     `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (s DeadletterSelection) Validate() error {
	if len(s.IDs) == 0 && !s.All && s.Code == "" && s.Seq == 0 {
		return badInput("say which dead letters: request ids, --seq SEQ, --code CODE or --all")
	}
	if s.All && (len(s.IDs) > 0 || s.Code != "" || s.Seq != 0) {
		return badInput("--all means every dead letter: leave out request ids, --seq and --code")
	}
	return nil
}

// AuditCmd is `worker audit`.
type AuditCmd struct {
	Verify AuditVerifyCmd `cmd:"" help:"Walk the audit trail and name the first record that was altered or is missing."`
	Export AuditExportCmd `cmd:"" help:"Write the audit trail as JSON lines."`
}

// AuditVerifyCmd is `worker audit verify`.
type AuditVerifyCmd struct {
	File  string `placeholder:"FILE" help:"Verify an export instead; needs no broker."`
	Heads string `placeholder:"FILE" help:"What --json wrote at an earlier time: the last records of then must still be there."`
	JSON  bool   `name:"json" help:"One JSON object."`
}

// AuditExportCmd is `worker audit export`.
type AuditExportCmd struct {
	Since time.Duration `placeholder:"DURATION" help:"Only records of the last so long, such as 24h or 7d (default: from the first)."`
	Out   string        `placeholder:"FILE" default:"-" help:"Where to write; - is standard output (default: ${default}). A file must not exist."`
}

// Validate is called by kong.
func (c AuditExportCmd) Validate() error {
	if c.Since < 0 {
		return badInput("--since: give how long ago, such as 24h")
	}
	return nil
}

// StatusCmd is `worker status`.
type StatusCmd struct {
	JSON bool `name:"json" help:"One JSON object, the same as /status of the admin server."`
}

// PauseCmd is `worker pause`.
type PauseCmd struct {
	Reason string `placeholder:"TEXT" required:"" help:"Why; shown by status, /readyz and the log, and stands in the audit trail."`
}

// ResumeCmd is `worker resume`.
type ResumeCmd struct {
	Reason string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
}

// CheckCmd is `worker check`.
type CheckCmd struct{}

// WhyCmd is `worker why`.
type WhyCmd struct {
	ID       string `arg:"" help:"Id of the request, or of a message: STREAM:SEQ. A machine's id or a ticket lists their requests."`
	SignedBy string `placeholder:"NAME" help:"The request of this signer or client, where several have that id; without it each is told."`
	JSON     bool   `name:"json" help:"One JSON object a line, one for each request of that id."`
}
