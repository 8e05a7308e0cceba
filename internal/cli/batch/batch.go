// Package batch is `worker batch`.
package batch

// Cmd is `worker batch`.
type Cmd struct {
	List   ListCmd   `cmd:"" help:"List batches, the one to which something happened last first."`
	Show   ShowCmd   `cmd:"" help:"Show how far a batch is, its first failures, and when its last row is expected to be called."`
	Pause  PauseCmd  `cmd:"" help:"Hold back a batch's rows that were not called; others are not touched."`
	Resume ResumeCmd `cmd:"" help:"Let a batch's rows go on."`
}
