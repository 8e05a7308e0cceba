// Command worker lifts app execution restrictions: it takes requests from NATS
// JetStream, calls the Microsoft Defender API, follows the machine actions to
// their end and publishes the results. It reads the configuration, wires the
// parts and runs one subcommand.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
