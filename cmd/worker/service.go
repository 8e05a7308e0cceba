package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender"
)

// service is one worker in one process. Several can run side by side in one process, each with its own registry.
type service struct {
	settings   config.Settings
	credential defender.CredentialSource
	lookup     func(string) (string, bool) // of the environment
	tracing    tracing
	log        *zap.Logger
	registry   *prometheus.Registry
	admin      *admin.Server
	adminAddr  net.Addr
	broker     *broker.Broker
	owner      string // this process, to the others
	ended      chan struct{}

	syncInterval bool // for benchmarks: the embedded broker acknowledges before the disk has it

	mu      sync.Mutex
	waiting string // what is waited for before requests are taken; "" once they are
	parts   *parts
	since   time.Time // not ready since; zero: ready
}

// newService checks what can be checked without a connection.
func newService(s config.Settings, lookup func(string) (string, bool), log *zap.Logger, level zap.AtomicLevel) (*service, error) {
	getenv := func(name string) string { v, _ := lookup(name); return v }
	credential, err := defender.NewCredential(defender.CredentialConfig{
		Mode: s.Defender.Auth, Cloud: s.Defender.Cloud, TokenFile: s.Defender.TokenFile,
		DisableInstanceDiscovery: s.Defender.DisableInstanceDiscovery, Getenv: getenv,
		Prompt: func(text string) { log.Warn("sign-in needs a person", zap.String("do", text)) },
	})
	if err != nil {
		return nil, badInput("%w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w := &service{
		settings: s, credential: credential, lookup: lookup, log: log, registry: registry, owner: randomID(),
		waiting: waitingForStart, since: time.Now(), ended: make(chan struct{}),
	}
	registry.MustRegister(w.gauges()...)
	w.admin, err = admin.New(admin.Config{
		Addr: s.Admin.Addr, Token: s.Admin.Token.Reveal(), Gatherer: registry, Level: &level,
	}, w.sources(), log)
	if err != nil {
		return nil, fmt.Errorf("admin server: %w", err)
	}
	return w, nil
}

// waitingForStart is what a service waits for before it has asked for its broker.
const waitingForStart = "starting"

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func (s *service) listen() error {
	addr, err := s.admin.Listen()
	if err != nil {
		return fmt.Errorf("admin server (WORKER_ADMIN_ADDR): %w", err)
	}
	s.adminAddr = addr
	s.log.Info("admin server listens", zap.String("addr", addr.String()))
	return nil
}

// open waits for the broker as long as ctx allows.
func (s *service) open(ctx context.Context) error {
	cfg := brokerConfig(s.settings)
	cfg.ClientName = "unrestrict-worker " + s.owner
	cfg.TracerProvider = s.tracing.spans()
	cfg.OnWait, cfg.SyncInterval = s.waitFor, s.syncInterval
	b, err := broker.Open(ctx, cfg, s.log)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if err := b.Provision(ctx); err != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeIn)
		defer cancel()
		_ = b.Close(last) // the error that matters is Provision's
		return fmt.Errorf("broker: %w", err)
	}
	if small := b.SmallPayload(); small != "" {
		s.log.Warn("the broker takes small messages alone", zap.String("what", small))
	}
	s.mu.Lock()
	s.broker = b
	s.mu.Unlock()
	return nil
}

func (s *service) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeIn)
	defer cancel()
	if s.broker != nil {
		if err := s.broker.Close(ctx); err != nil {
			s.log.Warn("the broker's connection did not close cleanly", zap.Error(err))
		}
	}
	s.tracing.close(ctx)
}

func (s *service) waitFor(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = reason
}

func brokerConfig(s config.Settings) broker.Config {
	return broker.Config{
		URL: strings.Join(s.NATS.URLs, ","),
		Auth: broker.Auth{
			Creds: s.NATS.Creds, NKey: s.NATS.Nkey, User: s.NATS.User, Password: s.NATS.Password.Reveal(),
			Token: s.NATS.Token.Reveal(), CA: s.NATS.CA, Cert: s.NATS.Cert, Key: s.NATS.Key,
		},
		DataDir: s.DataDir, EmbeddedAddr: s.Embedded.Addr, EmbeddedToken: s.Embedded.Token.Reveal(),
		Names:     broker.Names(s.Names),
		Provision: s.Provision, Replicas: s.Replicas, AckWait: s.AckWait, Windows: windows(s.Rates),
	}
}

func windows(r config.Rates) []budget.Window { return budget.Limits(r.PerMinute, r.PerHour) }
