package cli

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/unrestrict-worker/internal/health"
)

// workersOwn is a situation in which the worker has a user of its own, and everybody else may do anything.
func workersOwn() situation {
	return situation{
		env: map[string]string{"NATS_USER": "worker", "NATS_PASSWORD": "w"},
		broker: func(o *server.Options) {
			o.Users = []*server.User{{Username: "worker", Password: "w"}, {Username: "anybody", Password: "a"}}
			o.NoAuthUser = "anybody"
		},
	}
}

// permit gives the worker's user other permissions while it is connected; nil: all.
func (p *conditionPlace) permit(t *testing.T, may *server.Permissions) {
	t.Helper()
	opts := p.opts.Clone()
	opts.Users = []*server.User{{Username: "worker", Password: "w", Permissions: may}, {Username: "anybody", Password: "a"}}
	if err := p.broker.ReloadOptions(opts); err != nil {
		t.Fatal(err)
	}
}

func denying(subject string) func(*testing.T, *conditionPlace) func() {
	return func(t *testing.T, p *conditionPlace) func() {
		p.permit(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{subject}}})
		return func() { p.permit(t, nil) }
	}
}

// TestWhatIsDeniedIsSaidAndHeals takes a permission away from a worker that is connected, and gives it back: the worker needs
// no restart, and everything that came meanwhile ends.
func TestWhatIsDeniedIsSaidAndHeals(t *testing.T) {
	for name, c := range map[string]struct {
		may   server.Permissions
		stops bool
	}{
		"acknowledgements": {server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.ACK.>"}}}, false},
		"answers":          {server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newConditionPlace(t, workersOwn())
			p.permit(t, &c.may)
			p.publish(t, "meanwhile", 1)
			p.asked = "" // where its call was made it waits for nothing
			row := health.Lookup(health.Denied)
			row.Stops = c.stops
			p.isSaid(t, row)
			p.permit(t, nil)
			p.isUnsaid(t, health.Denied)
			p.publish(t, "after", 2)
			p.eventually(t, "both to succeed", func() string {
				_, out := p.command(t, "results", "--follow=false", "--outcome", "succeeded")
				if !strings.Contains(out, "meanwhile") || !strings.Contains(out, "after") {
					return out
				}
				return ""
			})
		})
	}
}
