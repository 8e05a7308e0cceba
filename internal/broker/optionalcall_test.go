package broker_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/unrestrict-worker/internal/broker"
)

// TestOptionalCall: who may not read a stream is asked nothing of it where the broker says so, and hears of a denial at once where
// it does not. The call has no end but that.
func TestOptionalCall(t *testing.T) {
	allow := func(subjects ...string) *server.Permissions {
		return &server.Permissions{Publish: &server.SubjectPermission{Allow: subjects}}
	}
	ask := "$JS.API.STREAM.INFO.REMEDIATION_RESULTS"
	for name, c := range map[string]struct {
		may         *server.Permissions
		asked, does bool
	}{
		"all":                 {nil, true, true},
		"the stream":          {allow("$SYS.REQ.USER.INFO", "$JS.API.STREAM.INFO.*"), true, true},
		"not the stream":      {allow("$SYS.REQ.USER.INFO", "remediation.>"), false, false},
		"all but it":          {&server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}}, false, false},
		"nor ask what it may": {allow("remediation.>"), true, false},
		"the stream alone":    {allow(ask), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := runServer(t, server.Options{JetStream: true, Users: []*server.User{{Username: "admin", Password: "p"}, {Username: "guest", Password: "g", Permissions: c.may}}})
			owner := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "admin", Password: "p"}, Provision: true})
			if err := owner.Provision(within(t)); err != nil {
				t.Fatal(err)
			}
			b := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "guest", Password: "g"}})
			ctx, asked := within(t), false
			err := b.OptionalCall(ctx, "REMEDIATION_RESULTS", func(ctx context.Context) error {
				asked = true
				_, err := b.Latest(ctx, "REMEDIATION_RESULTS", 1)
				for err != nil && ctx.Err() == nil { // as what tries again until its time is over
					_, err = b.Latest(ctx, "REMEDIATION_RESULTS", 1)
				}
				return err
			})
			if ctx.Err() != nil || asked != c.asked || (err == nil) != c.does {
				t.Errorf("asked %t, %v", asked, err)
			}
		})
	}
}
