package cli

import (
	"example.com/unrestrict-worker/internal/cli/approvals"
	"example.com/unrestrict-worker/internal/cli/audit"
	"example.com/unrestrict-worker/internal/cli/batch"
	"example.com/unrestrict-worker/internal/cli/check"
	"example.com/unrestrict-worker/internal/cli/deadletter"
	"example.com/unrestrict-worker/internal/cli/demo"
	"example.com/unrestrict-worker/internal/cli/orders"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/cli/why"
)

// cli is the command table. The tag settings names the groups of settings that
// a command uses: those are shown in its help, offered by completion, and
// checked before it runs; mistakes in others are none of its business. Only a
// command tagged withmistakes runs with any.
type cli struct {
	HelpFlag    helpFlag    `name:"help" short:"h" group:"general" help:"Show this help."`
	VersionFlag versionFlag `name:"version" group:"general" help:"Show the version."`
	Config      *string     `placeholder:"FILE" group:"general" help:"YAML file with settings; flags and environment come first."`

	Run         RunCmd               `cmd:"" settings:"broker embedded names provisioning work budget following acceptance defender admin log" saysunknown:"" help:"Run the service until SIGINT or SIGTERM: consume, call, follow, publish."`
	Demo        demo.Cmd             `cmd:"" settings:"embedded admin log" help:"Show the whole system on loopback, with nothing to set up."`
	Simulate    demo.SimulateCmd     `cmd:"" settings:"log" help:"Simulate the Defender API and its token endpoint."`
	Submit      submit.Cmd           `cmd:"" settings:"broker embedded names budget log" help:"Publish one request, or many from a file."`
	Batch       batch.Cmd            `cmd:"" settings:"broker embedded names budget log" help:"Show how far batches are, hold one back, and let it go on."`
	Results     ResultsCmd           `cmd:"" settings:"broker embedded names log" help:"Follow the results, one line each."`
	Deadletter  deadletter.Cmd       `cmd:"" settings:"broker embedded names log" help:"Look at dead letters, replay or drop them."`
	Audit       audit.Cmd            `cmd:"" settings:"broker embedded log" help:"Verify the audit trail, or export it."`
	Status      StatusCmd            `cmd:"" settings:"broker embedded names budget log" help:"Show queue, budget, followed actions and whether it is paused."`
	Pause       PauseCmd             `cmd:"" settings:"broker embedded names provisioning log" help:"Stop consumption on every replica; nothing in flight is lost."`
	Resume      ResumeCmd            `cmd:"" settings:"broker embedded names log" help:"Start consumption again on every replica."`
	Cancel      orders.CancelCmd     `cmd:"" settings:"broker embedded names log" help:"Take back requests that were not called yet, or a whole batch."`
	Approvals   approvals.ListCmd    `cmd:"" settings:"broker embedded names log" help:"Show what awaits approval, with all that an approval signs."`
	Approve     approvals.ApproveCmd `cmd:"" settings:"broker embedded names log" help:"Approve requests that await it, by their digests."`
	Deny        approvals.DenyCmd    `cmd:"" settings:"broker embedded names log" help:"Deny requests that await approval: they end rejected."`
	Intake      IntakeCmd            `cmd:"" settings:"broker embedded names provisioning budget following acceptance intake log" saysunknown:"" help:"Take requests over HTTP from systems that can't speak NATS, until SIGINT or SIGTERM."`
	Check       check.Cmd            `cmd:"" settings:"all" withmistakes:"" saysunknown:"" help:"Prove the set-up step by step, and say what to do about each failure."`
	Schema      SchemaCmd            `cmd:"" help:"Print the JSON Schema of requests, results, orders or audit records, or the AsyncAPI or OpenAPI document."`
	Why         why.Cmd              `cmd:"" settings:"broker embedded names budget log" help:"Show everything that happened to one request and what it waits for."`
	Help        HelpCmd              `cmd:"" help:"Show what there is, a command's help, or what each setting means."`
	Healthcheck HealthcheckCmd       `cmd:"" settings:"admin" help:"Ask /readyz of the worker on this machine."`
	Completion  CompletionCmd        `cmd:"" help:"Print completion for a shell."`
	Version     VersionCmd           `cmd:"" help:"Print version, commit and Go version."`
}
