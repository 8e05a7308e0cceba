package cli

import (
	"context"

	"example.com/unrestrict-worker/docs"
	"example.com/unrestrict-worker/internal/cli/session"
)

// SchemaCmd is `worker schema`.
type SchemaCmd struct {
	Document string `arg:"" enum:"request,result,audit,asyncapi" help:"One of request, result, audit, asyncapi."`
}

// Run prints the document.
func (c *SchemaCmd) Run(_ context.Context, env *session.Env) error {
	path := "schemas/" + c.Document + ".json"
	if c.Document == "asyncapi" {
		path = "asyncapi.yaml"
	}
	text, err := docs.Messages.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = env.Stdout.Write(text)
	return err
}
