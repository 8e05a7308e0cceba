package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// TestDeniedReplyIsNamed: the broker denies a message after it was sent, and in its own words alone.
func TestDeniedReplyIsNamed(t *testing.T) {
	s := runServer(t, server.Options{JetStream: true, Users: []*server.User{
		{Username: "worker", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"team.blue.*"}}}},
	}})
	log, logs := observed()
	b, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "worker", Password: "p"}, Provision: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBroker(t, b) })
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"r-1", "r-2"} {
		if err := b.NewPublisher().Result(within(t), result(id), message.Trace{}, "team.blue."+id, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	const said = "a result did not reach its request's replyTo: the broker denies the worker to publish there; allow it, or let the requests name another subject"
	eventually(t, "both to be told of", func() bool { return logs.FilterMessage(said).Len() == 2 })
	for i, e := range logs.FilterMessage(said).All() {
		if want, f := []string{"team.blue.r-1", "team.blue.r-2"}[i], e.ContextMap(); f["reply_to"] != want {
			t.Errorf("told %v, want %s", f, want)
		}
	}
}
