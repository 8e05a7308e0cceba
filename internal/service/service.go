// Package service is one worker in one process. It builds the parts, connects them, and reports their state.
package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
)

// Service is one worker in one process. Several can run side by side in one process, each with its own registry.
type Service struct {
	Settings   config.Settings
	credential defender.CredentialSource
	lookup     func(string) (string, bool) // of the environment
	tracing    Tracing
	Log        *zap.Logger
	Registry   *prometheus.Registry
	metrics    prometheus.Registerer // into Registry
	admin      *admin.Server
	AdminAddr  net.Addr
	Broker     *broker.Broker
	Owner      string // identifies this process to the other replicas
	host       string
	account    string // of NATS; once there is a broker
	Ended      chan struct{}

	// Explain returns all that is known of an id's requests, as `worker why` prints it; nil: not available. Set before Run.
	Explain func(ctx context.Context, b *broker.Broker, s config.Settings, id string) ([]admin.Story, error)

	SyncInterval bool          // for benchmarks: the embedded broker acknowledges before it has synced to disk
	StillAfter   time.Duration // for tests: how long requests may stand still without a known cause; 0: the default

	Mu         sync.Mutex
	waiting    string // what the start waits for; "" once requests are taken
	Parts      *parts
	conditions []health.Condition // as Conditions returned them last
	lines      LineCache
}

// New checks what can be checked without a connection.
func New(s config.Settings, lookup func(string) (string, bool), log *zap.Logger, level zap.AtomicLevel) (*Service, error) {
	getenv := func(name string) string { v, _ := lookup(name); return v }
	credential, err := defender.NewCredential(defender.CredentialConfig{
		Mode: s.Defender.Auth, Cloud: s.Defender.Cloud, TokenFile: s.Defender.TokenFile,
		DisableInstanceDiscovery: s.Defender.DisableInstanceDiscovery, Getenv: getenv,
		Prompt: func(text string) { log.Warn("sign-in needs a person", zap.String("do", text)) },
	})
	if err != nil {
		return nil, config.BadInput("%w", err)
	}
	registry := prometheus.NewRegistry()
	metrics := ForTenant(s.Tenant, registry)
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w := &Service{
		Settings: s, credential: credential, lookup: lookup, Log: log, Registry: registry, metrics: metrics, Owner: RandomID(), host: hostName(),
		waiting: waitingForStart, Ended: make(chan struct{}),
	}
	metrics.MustRegister(w.gauges()...)
	w.admin, err = admin.New(admin.Config{
		Addr: s.Admin.Addr, Token: s.Admin.Token.Reveal(), Gatherer: registry, Level: &level,
	}, w.sources(), log)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// waitingForStart is the value of waiting until the broker is asked for.
const waitingForStart = "starting"

// RandomID returns an id that can't be guessed.
func RandomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func (s *Service) listen() error {
	addr, err := s.admin.Listen()
	if err != nil {
		return fmt.Errorf("WORKER_ADMIN_ADDR: %w; give an address that is free, such as 127.0.0.1:8081, or end the other worker that listens there", err)
	}
	s.AdminAddr = addr
	s.Log.Info("admin server listens", zap.String("addr", addr.String()))
	return nil
}

// Open connects to the broker and provisions what it needs there. It waits for the broker as long as ctx allows.
func (s *Service) Open(ctx context.Context) error {
	cfg := config.BrokerConfig(s.Settings)
	cfg.ClientName = "unrestrict-worker " + s.Owner
	cfg.TracerProvider = s.tracing.Spans()
	cfg.OnWait, cfg.SyncInterval = s.waitFor, s.SyncInterval
	b, err := broker.Open(ctx, cfg, s.Log)
	if err != nil {
		return err
	}
	if err := b.Provision(ctx); err != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), CloseIn)
		defer cancel()
		_ = b.Close(last) // the error that matters is Provision's
		return err
	}
	if small := b.SmallPayload(); small != "" {
		s.Log.Warn("the broker takes small messages alone", zap.String("what", small))
	}
	account := b.Account(ctx)
	s.Mu.Lock()
	s.Broker, s.account = b, account
	s.Mu.Unlock()
	return nil
}

// hostName returns this machine's name; "" if it has none.
func hostName() string {
	name, _ := os.Hostname()
	return name
}

// Close closes the broker's connection and sends the last spans.
func (s *Service) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), CloseIn)
	defer cancel()
	if s.Broker != nil {
		if err := s.Broker.Close(ctx); err != nil {
			s.Log.Warn("the broker's connection did not close cleanly", zap.Error(err))
		}
	}
	s.tracing.Close(ctx)
}

func (s *Service) waitFor(reason string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.waiting = reason
}
