package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
)

// HealthcheckCmd is `worker healthcheck`, for containers without a shell.
type HealthcheckCmd struct{}

// Run asks /readyz of the worker on this machine; it ends with exit status 1,
// and what the worker answered, if that isn't ready.
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
	// A transport of its own: no proxy stands between a machine and itself.
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
