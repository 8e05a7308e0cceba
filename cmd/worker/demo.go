package main

import "context"

// Run is written next.
func (c *DemoCmd) Run(context.Context, *Env) error { return ExitStatus(1) }
