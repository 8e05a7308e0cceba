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
// checked before it runs. Mistakes in other settings are ignored. Only a command
// tagged withmistakes runs in spite of mistakes in its own.
type cli struct {
	HelpFlag    helpFlag    `name:"help" short:"h" group:"general" help:"Show this help."`
	VersionFlag versionFlag `name:"version" group:"general" help:"Show the version."`
	Config      *string     `placeholder:"FILE" group:"general" help:"YAML file with settings."`

	Run         RunCmd               `cmd:"" group:"service" settings:"broker embedded names provisioning work budget following acceptance defender admin log" saysunknown:"" help:"Run the service until SIGINT or SIGTERM."`
	Demo        demo.Cmd             `cmd:"" group:"try" settings:"embedded budget admin intake log" help:"Show the whole system on loopback, with nothing to set up."`
	Simulate    demo.SimulateCmd     `cmd:"" group:"try" settings:"log" help:"Simulate the Defender API and its token endpoint."`
	Submit      submit.Cmd           `cmd:"" group:"requests" settings:"broker embedded names budget log" help:"Publish one request, or many from a file."`
	Batch       batch.Cmd            `cmd:"" group:"requests" settings:"broker embedded names budget log" help:"Show how far batches are, hold one back, and let it go on."`
	Results     ResultsCmd           `cmd:"" group:"requests" settings:"broker embedded names log" help:"Follow the results, one line each."`
	Deadletter  deadletter.Cmd       `cmd:"" group:"records" settings:"broker embedded names log" help:"Look at dead letters, replay or drop them."`
	Audit       audit.Cmd            `cmd:"" group:"records" settings:"broker embedded log" help:"Verify the audit trail, or export it."`
	Status      StatusCmd            `cmd:"" group:"service" settings:"broker embedded names budget log" help:"Show queue, budget, followed actions, and what is wrong."`
	Pause       PauseCmd             `cmd:"" group:"service" settings:"broker embedded names provisioning log" help:"Stop consumption on every replica; nothing gets lost."`
	Resume      ResumeCmd            `cmd:"" group:"service" settings:"broker embedded names log" help:"Start consumption again on every replica."`
	Cancel      orders.CancelCmd     `cmd:"" group:"requests" settings:"broker embedded names log" help:"Take back requests that were not called yet, or a batch."`
	Approvals   approvals.ListCmd    `cmd:"" group:"requests" settings:"broker embedded names log" help:"Show what awaits approval, with all that will be signed."`
	Approve     approvals.ApproveCmd `cmd:"" group:"requests" settings:"broker embedded names log" help:"Approve requests that await it, by their digests."`
	Deny        approvals.DenyCmd    `cmd:"" group:"requests" settings:"broker embedded names log" help:"Deny requests that await approval: they end rejected."`
	Intake      IntakeCmd            `cmd:"" group:"service" settings:"broker embedded names provisioning budget following acceptance intake log" saysunknown:"" help:"Take requests over HTTP from what can't speak NATS."`
	Check       check.Cmd            `cmd:"" group:"service" settings:"all" withmistakes:"" saysunknown:"" help:"Prove the set-up step by step; say how to mend it."`
	Schema      SchemaCmd            `cmd:"" group:"self" help:"Print a JSON Schema, or the AsyncAPI or OpenAPI document."`
	Why         why.Cmd              `cmd:"" group:"requests" settings:"broker embedded names budget log" help:"Show what happened to a request, and what it waits for."`
	Help        HelpCmd              `cmd:"" group:"self" help:"Show a command's help, or what each setting means."`
	Healthcheck HealthcheckCmd       `cmd:"" group:"service" settings:"admin" help:"Ask /readyz of the worker on this machine."`
	Completion  CompletionCmd        `cmd:"" group:"self" help:"Print completion for a shell."`
	Version     VersionCmd           `cmd:"" group:"self" help:"Print version, commit and Go version."`
}
