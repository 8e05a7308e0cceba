package cli

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/health"
)

// TestWhatReplicasShareIsSaidEverywhere has other ways to conditions of the table, about what the replicas share: the state
// bucket and the watch of the ledger.
func TestWhatReplicasShareIsSaidEverywhere(t *testing.T) {
	accepted := func(begin func(*testing.T, *conditionPlace) func()) func(*testing.T, *conditionPlace) func() {
		return func(t *testing.T, p *conditionPlace) func() {
			end := begin(t, p)
			p.publish(t, "accepted", 1)
			return end
		}
	}
	for name, c := range map[string]struct {
		code string
		situation
	}{
		"the state bucket can't be written": {health.Store, situation{publish: true, begin: startedAnewDenying("$KV.UNRESTRICT_STATE.>")}},
		"the state bucket takes no second value": {health.Unfit, situation{publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
			p.stop()
			p.vars["WORKER_PROVISION"] = "false"
			p.run(t)
			return p.limit(t, "KV_UNRESTRICT_STATE", func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject = true })
		}}},
		"the lease can't be taken":     {health.NotFollowing, situation{begin: accepted(startedAnewDenying("$KV.UNRESTRICT_STATE.lease.>"))}},
		"the ledger can't be followed": {health.NotFollowing, situation{begin: accepted(startedAnewDenying("$JS.API.CONSUMER.CREATE.KV_UNRESTRICT_LEDGER.>"))}},
		"the closure's key is not read": {health.NotUnderstood, situation{publish: true, begin: func(t *testing.T, p *conditionPlace) func() {
			kv, err := p.js.KeyValue(t.Context(), broker.StateBucket)
			if err == nil {
				_, err = kv.Put(t.Context(), "closed", []byte("until Tuesday"))
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() { p.command(t, "resume", "--closure", "--yes") }
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.isSaidEverywhere(t, health.Lookup(c.code))
		})
	}
}

// startedAnewDenying has the broker, started again, deny everybody to publish on some subjects, until it is started again without that.
func startedAnewDenying(subjects ...string) func(*testing.T, *conditionPlace) func() {
	return func(t *testing.T, p *conditionPlace) func() {
		restart := func(denied []string) {
			p.stopBroker()
			anybody := &server.User{Username: "anybody", Password: "none", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: denied}}}
			p.opts.Users, p.opts.NoAuthUser = []*server.User{anybody}, anybody.Username
			p.startBroker(t)
		}
		restart(subjects)
		return func() { restart(nil) }
	}
}
