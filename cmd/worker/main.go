// Command worker lifts app execution restrictions: it takes requests from NATS
// JetStream, calls the Microsoft Defender API, follows the machine actions to
// their end and publishes the results.
package main

import "example.com/unrestrict-worker/internal/cli"

func main() { cli.Main() }
