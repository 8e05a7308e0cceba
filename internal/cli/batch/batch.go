// Package batch is `worker batch`.
package batch

// Cmd is `worker batch`.
type Cmd struct {
	List ListCmd `cmd:"" help:"List batches, the one to which something happened last first."`
	Show ShowCmd `cmd:"" help:"Show how far a batch is, its first failures, and when its last row is expected to be called."`
}
