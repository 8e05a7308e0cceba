package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/alecthomas/kong"

	"example.com/unrestrict-worker/docs"
	"example.com/unrestrict-worker/internal/broker"
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

// BeforeReset is called by kong, before it checks what is required.
func (versionFlag) BeforeReset(ctx *kong.Context) error {
	if err := service.ThisBuild().Write(ctx.Stdout); err != nil {
		return err
	}
	return errShown
}

// SchemaCmd is `worker schema`.
type SchemaCmd struct {
	Document string `arg:"" enum:"request,result,audit,control,asyncapi,openapi" help:"One of request, result, audit, control, asyncapi, openapi."`
}

// Run prints the document.
func (c *SchemaCmd) Run(_ context.Context, env *session.Env) error {
	path := "schemas/" + c.Document + ".json"
	if c.Document == "asyncapi" || c.Document == "openapi" {
		path = c.Document + ".yaml"
	}
	text, err := docs.Messages.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = env.Stdout.Write(text)
	return err
}

// HealthcheckCmd is `worker healthcheck`, for containers without a shell.
type HealthcheckCmd struct{}

// Run requests /readyz of the worker on this machine. If the worker is not ready,
// it ends with exit status 1 and the answer.
func (c *HealthcheckCmd) Run(ctx context.Context, env *session.Env) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+broker.Dialable(env.Settings.Admin.Addr)+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	if token := env.Settings.Admin.Token.Reveal(); token != "" {
		request.Header.Set("Authorization", "Bearer "+token) // for the reasons' texts
	}
	// A transport of its own: a request to this machine must not go through a proxy.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		_, err := fmt.Fprintln(env.Stdout, "ready")
		return err
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	return fmt.Errorf("not ready: %s %s", response.Status, body)
}
