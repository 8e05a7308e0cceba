package broker_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
)

func TestProvisionOutlastsTheBrokersAbsence(t *testing.T) {
	opts := server.Options{Port: freePort(t), JetStream: true, StoreDir: t.TempDir()}
	s := runServer(t, opts)
	waits := make(chan string, 100)
	b, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Provision: true, OnWait: func(reason string) { waits <- reason }}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	stopServer(s)
	eventually(t, "the loss", func() bool { return b.Connected() != nil })
	done := make(chan error, 1)
	go func() { done <- b.Provision(within(t)) }()
	<-waits
	runServer(t, opts)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestProvisionWithoutJetStream(t *testing.T) {
	t.Run("on the server", func(t *testing.T) {
		s := runServer(t, server.Options{})
		waits := make(chan string, 100)
		b := open(t, broker.Config{URL: s.ClientURL(), Provision: true, OnWait: func(reason string) { waits <- reason }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Provision(ctx) }()
		if reason := <-waits; !strings.Contains(reason, "nats-server -js") {
			t.Errorf("reason %q", reason)
		}
		cancel()
		err := <-done
		wantError(t, err, "nats-server -js")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("for the account", func(t *testing.T) {
		opts, creds, _ := newOperator(t)
		opts.JetStream = true
		s := runServer(t, opts)
		b := open(t, broker.Config{URL: s.ClientURL(), Provision: true, Auth: broker.Auth{Creds: creds}})
		wantError(t, b.Provision(within(t)), "not enabled for account", "--js-enable")
	})
}

func TestProvisionDenied(t *testing.T) {
	p := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.CREATE.>"}}}
	s := runServer(t, server.Options{JetStream: true, Users: []*server.User{{Username: "worker", Password: "p", Permissions: p}}})
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true, Auth: broker.Auth{User: "worker", Password: "p"}})
	err := b.Provision(within(t))
	if _, ok := errors.AsType[*broker.DeniedError](err); !ok {
		t.Errorf("error %v, want a denial", err)
	}
	wantError(t, err, "STREAM.CREATE", "WORKER_PROVISION=false")
}

// A user who may not hear answers is told so at once: each call would only time out.
func TestAnswersDenied(t *testing.T) {
	p := &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}
	s := runServer(t, server.Options{JetStream: true, Users: []*server.User{{Username: "worker", Password: "p", Permissions: p}}})
	_, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "worker", Password: "p"}}, zap.NewNop())
	if _, ok := errors.AsType[*broker.RefusedError](err); !ok {
		t.Errorf("error %v, want a refusal", err)
	}
	wantError(t, err, "_INBOX", "NATS_INBOX_PREFIX")
}

func TestProvisionReplicasNeedACluster(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true, Replicas: 3})
	wantError(t, b.Provision(within(t)), "WORKER_REPLICAS", "cluster")
}
