package demo

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// simulatedTokenLife and simulatedTokenRenewal: the token file always holds a
// token with most of its life before it.
const (
	simulatedTokenLife    = time.Hour
	simulatedTokenRenewal = 10 * time.Minute
)

// SimulateCmd is `worker simulate`.
type SimulateCmd struct {
	Addr string `placeholder:"HOST:PORT" default:"127.0.0.1:8443" help:"Where to listen (default: ${default})."`
	TLS  bool   `name:"tls" help:"Serve TLS with a CA and certificate made for it; prints the path of the CA."`
	Dir  string `placeholder:"DIR" help:"Put its files (token, or with --tls ca.pem) there, and leave them (default: a temporary folder)."`
}

// Run serves the simulated API until the context ends.
func (c *SimulateCmd) Run(ctx context.Context, env *session.Env) error {
	log, _ := env.Logger()
	return c.Serve(ctx, env.Stdout, log)
}

// Serve serves the simulated Defender API until ctx ends, and prints the variables with which a worker uses it.
func (c *SimulateCmd) Serve(ctx context.Context, stdout io.Writer, log *zap.Logger) (err error) {
	if err := requireLoopback(c.Addr); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	defer l.Close()
	dir, discard, err := c.folder()
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	defer func() { err = errors.Join(err, discard()) }()

	s := NewSimulation(dir, c.TLS)
	server := &http.Server{Handler: s.api, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(log)}
	serve := server.Serve
	if c.TLS {
		if err := s.useTLS(server, l.Addr()); err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	} else if err := s.writeToken(); err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	s.print(stdout, l.Addr().String())

	renew := time.NewTicker(simulatedTokenRenewal)
	defer renew.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("simulate: %w", err)
		case <-renew.C:
			if err := s.Renew(); err != nil {
				log.Warn("simulated token not renewed", zap.Error(err))
			}
		case <-ctx.Done():
			s.api.Close() // lets go of requests that hang by a fault
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if server.Shutdown(grace) != nil {
				_ = server.Close()
			}
			<-ended //nolint:errcheck // http.ErrServerClosed
			return nil
		}
	}
}

// folder is where the files are put, made if it is missing, and what to do with it at the end.
func (c *SimulateCmd) folder() (dir string, discard func() error, err error) {
	if c.Dir != "" {
		return c.Dir, func() error { return nil }, os.MkdirAll(c.Dir, 0o700)
	}
	dir, err = os.MkdirTemp("", "worker-simulate-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// requireLoopback: the simulator gives out tokens to anybody and takes faults from anybody.
func requireLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return config.BadInput("--addr %q is not host:port: %w", addr, err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return config.BadInput("--addr %q is not a loopback address: the simulator has no access control and is for this machine alone, use 127.0.0.1:PORT", addr)
	}
	return nil
}

// Simulation is a simulator with what a worker needs to sign in to it.
type Simulation struct {
	api            *defendersim.Server
	Dir            string
	caPath         string // with TLS
	tenant, client string
	secret         string
}

// NewSimulation makes a simulator whose files are in dir.
func NewSimulation(dir string, withTLS bool) *Simulation {
	s := &Simulation{Dir: dir, tenant: "7f3a9c52-1d84-4b6e-9a07-c25e81d4f630", client: "2f48b784-5da5-4e61-9957-012d2630f1e4"}
	if withTLS {
		s.secret = "simulated-" + rand.Text()
	}
	s.api = defendersim.New(defendersim.Config{
		AllowUnknownMachines: true, CallLog: 10_000, TokenLifetime: simulatedTokenLife,
		TenantID: s.tenant, ClientID: s.client, ClientSecret: s.secret,
	})
	return s
}

func (s *Simulation) useTLS(server *http.Server, addr net.Addr) error {
	var addresses []net.IP
	if tcp, ok := addr.(*net.TCPAddr); ok {
		addresses = append(addresses, tcp.IP)
	}
	cert, caPath, err := defendersim.NewTLS(s.Dir, addresses...)
	if err != nil {
		return err
	}
	s.caPath = caPath
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return nil
}

// TokenPath is where the token file is.
func (s *Simulation) TokenPath() string { return filepath.Join(s.Dir, "token") }

// writeToken replaces the token file as a whole, so that no reader sees half a token.
func (s *Simulation) writeToken() error {
	next := s.TokenPath() + ".next"
	if err := os.WriteFile(next, []byte(s.api.IssueToken(simulatedTokenLife)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.TokenPath())
}

// Renew does nothing with TLS: there the worker asks for its tokens itself.
func (s *Simulation) Renew() error {
	if s.caPath != "" {
		return nil
	}
	return s.writeToken()
}

// print writes the variables to copy, one export a line.
func (s *Simulation) print(w io.Writer, addr string) {
	scheme := "http"
	variables := [][2]string{{"DEFENDER_AUTH", "token-file"}, {"DEFENDER_TOKEN_FILE", s.TokenPath()}}
	if s.caPath != "" {
		scheme = "https"
		variables = [][2]string{
			{"DEFENDER_AUTH", "client-secret"},
			{"AZURE_TENANT_ID", s.tenant},
			{"AZURE_CLIENT_ID", s.client},
			{"AZURE_CLIENT_SECRET", s.secret},
			{"AZURE_AUTHORITY_HOST", "https://" + addr + "/"},
			{"DEFENDER_DISABLE_INSTANCE_DISCOVERY", "true"},
			{"SSL_CERT_FILE", s.caPath},
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Simulated Defender API at %s://%s, faults and calls at /sim/. Every machine id of 40 hexadecimal digits exists.\n", scheme, addr)
	if s.caPath != "" {
		fmt.Fprintf(&b, "Its CA: %s\n", s.caPath)
	}
	fmt.Fprintf(&b, "For a worker:\n\nexport DEFENDER_API_URL=%s://%s\n", scheme, addr)
	for _, v := range variables {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], session.ShellQuote(v[1]))
	}
	b.WriteString("\nInterrupt to end.\n")
	_, _ = io.WriteString(w, b.String())
}
