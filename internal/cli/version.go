package cli

import (
	"context"
	"encoding/json"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/service"
)

// VersionCmd is `worker version`.
type VersionCmd struct {
	JSON bool `name:"json" help:"One JSON object."`
}

// Run prints the version.
func (c *VersionCmd) Run(_ context.Context, env *session.Env) error {
	if c.JSON {
		return json.NewEncoder(env.Stdout).Encode(service.ThisBuild())
	}
	return service.ThisBuild().Write(env.Stdout)
}

// versionFlag is --version, which most look for first.
type versionFlag bool

// BeforeReset is called by kong, before anything required is missed.
func (versionFlag) BeforeReset(ctx *kong.Context) error {
	if err := service.ThisBuild().Write(ctx.Stdout); err != nil {
		return err
	}
	return errShown
}
