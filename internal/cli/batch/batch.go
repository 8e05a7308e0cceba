// Package batch is `worker batch`.
package batch

// Cmd is `worker batch`.
type Cmd struct {
	List   ListCmd   `cmd:"" help:"List batches, the one that changed last first."`
	Show   ShowCmd   `cmd:"" help:"Show how far a batch is, its failures and expected end."`
	Pause  PauseCmd  `cmd:"" help:"Hold back a batch's rows that were not called, no others."`
	Resume ResumeCmd `cmd:"" help:"Let a batch's rows go on."`
}
