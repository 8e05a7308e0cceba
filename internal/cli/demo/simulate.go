package demo

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

	Name     []string          `placeholder:"NAME" help:"With --tls: a further host name in the certificate, for clients whose hosts are fixed; may be repeated."`
	Role     []string          `placeholder:"ROLE" help:"A role that tokens bear, in place of the usual two; may be repeated. none: no role."`
	Machines string            `placeholder:"FILE" help:"A CSV of the machines that exist: machineId and any of dnsName, ip, aadDeviceId, outcome, offline, pending, inProgress (default: a few to look up, and every id exists)."`
	Fault    []string          `placeholder:"JSON" sep:"none" help:"A fault, as POST /sim/faults takes it; may be repeated."`
	Set      map[string]string `placeholder:"NAME=VALUE" mapsep:"none" help:"Set a switch, such as duplicate=201 or listLag=5s; may be repeated. They are listed at /sim/, where they can be changed too."`
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
	s, err := c.simulation()
	if err != nil {
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

	s.Dir = dir
	server := &http.Server{Handler: s.api, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(log)}
	serve := server.Serve
	if c.TLS {
		if err := s.useTLS(server, l.Addr(), c.Name); err != nil {
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
			s.api.Close() // releases requests that a fault keeps hanging
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

// folder returns where the files are put, created if it is missing, and what to do with it at the end.
func (c *SimulateCmd) folder() (dir string, discard func() error, err error) {
	if c.Dir != "" {
		return c.Dir, func() error { return nil }, os.MkdirAll(c.Dir, 0o700)
	}
	dir, err = os.MkdirTemp("", "worker-simulate-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// requireLoopback refuses other addresses: the simulator gives tokens to anybody and takes faults from anybody.
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

// simulation makes the simulator that the flags ask for. It does not listen yet, and has no folder.
func (c *SimulateCmd) simulation() (*Simulation, error) {
	machines, err := readMachines(c.Machines)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("simulate: make the key that signs tokens: %w", err)
	}
	roles := c.Role
	if slices.Equal(roles, []string{"none"}) {
		roles = []string{}
	}
	s := newSimulation(defendersim.Config{AllowUnknownMachines: c.Machines == "", Roles: roles, SigningKey: key})
	for _, one := range machines {
		s.api.AddMachine(one.id, one.Machine)
	}
	if err := s.api.Set(c.Set); err != nil {
		return nil, config.BadInput("--set: %w", err)
	}
	for _, text := range c.Fault {
		fault, err := defendersim.ParseFault(strings.NewReader(text))
		if err != nil {
			return nil, config.BadInput("--fault %s: %s; give JSON such as {\"op\":\"unrestrict\",\"status\":503,\"times\":1}", text, strings.TrimPrefix(err.Error(), "jsontext: "))
		}
		s.api.Inject(fault)
	}
	s.exist = "Every machine id of 40 hexadecimal digits exists."
	if c.Machines != "" {
		s.exist = fmt.Sprintf("The %d machines of %s exist.", len(machines), c.Machines)
	}
	return s, nil
}

// Simulation is a simulator with what a client needs to sign in to it.
type Simulation struct {
	api    *defendersim.Server
	Dir    string
	caPath string // with TLS
	tenant string
	app    defendersim.Registration // with the usual roles
	bare   defendersim.Registration // without any
	exist  string                   // which machines exist, in a sentence
}

// NewSimulation makes a simulator in which every machine exists. Its files are in dir.
func NewSimulation(dir string) *Simulation {
	s := newSimulation(defendersim.Config{AllowUnknownMachines: true})
	s.Dir = dir
	return s
}

func newSimulation(cfg defendersim.Config) *Simulation {
	s := &Simulation{
		tenant: "7f3a9c52-1d84-4b6e-9a07-c25e81d4f630",
		app:    defendersim.Registration{ClientID: "2f48b784-5da5-4e61-9957-012d2630f1e4", ClientSecret: "simulated-" + rand.Text()},
		bare:   defendersim.Registration{ClientID: "b6e46392-0c7d-4f1e-8a35-4d9f7e2c6a18", ClientSecret: "simulated-" + rand.Text()},
	}
	cfg.CallLog, cfg.TokenLifetime = 10_000, simulatedTokenLife
	cfg.TenantID, cfg.ClientID, cfg.ClientSecret, cfg.Others = s.tenant, s.app.ClientID, s.app.ClientSecret, []defendersim.Registration{s.bare}
	s.api = defendersim.New(cfg)
	return s
}

func (s *Simulation) useTLS(server *http.Server, addr net.Addr, names []string) error {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		names = append(slices.Clone(names), tcp.IP.String())
	}
	cert, caPath, err := defendersim.NewTLS(s.Dir, names...)
	if err != nil {
		return err
	}
	s.caPath = caPath
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return nil
}

// TokenPath returns the path of the token file.
func (s *Simulation) TokenPath() string { return filepath.Join(s.Dir, "token") }

// writeToken replaces the token file as a whole, so that no reader sees half a token.
func (s *Simulation) writeToken() error {
	next := s.TokenPath() + ".next"
	if err := os.WriteFile(next, []byte(s.api.IssueToken(simulatedTokenLife)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.TokenPath())
}

// Renew writes a new token to the file. With TLS it does nothing: then the worker requests its tokens itself.
func (s *Simulation) Renew() error {
	if s.caPath != "" {
		return nil
	}
	return s.writeToken()
}

// print writes what a client signs in with, and for a worker the variables to copy, one export a line.
func (s *Simulation) print(w io.Writer, addr string) {
	scheme := "http"
	variables := [][2]string{{"DEFENDER_AUTH", "token-file"}, {"DEFENDER_TOKEN_FILE", s.TokenPath()}}
	if s.caPath != "" {
		scheme = "https"
		variables = [][2]string{
			{"DEFENDER_AUTH", "client-secret"},
			{"AZURE_TENANT_ID", s.tenant},
			{"AZURE_CLIENT_ID", s.app.ClientID},
			{"AZURE_CLIENT_SECRET", s.app.ClientSecret},
			{"AZURE_AUTHORITY_HOST", "https://" + addr + "/"},
			{"DEFENDER_DISABLE_INSTANCE_DISCOVERY", "true"},
			{"SSL_CERT_FILE", s.caPath},
		}
	}
	base := scheme + "://" + addr
	var b strings.Builder
	fmt.Fprintf(&b, "Simulated Defender API at %s, faults, switches and calls at /sim/. %s\n", base, s.exist)
	if s.caPath != "" {
		fmt.Fprintf(&b, "Its CA: %s\n", s.caPath)
	}
	b.WriteString("\nFor any client:\n\n")
	for _, line := range [][2]string{
		{"tenant", s.tenant},
		{"token endpoint", base + "/" + s.tenant + "/oauth2/v2.0/token (v1: /oauth2/token)"},
		{"client id", s.app.ClientID},
		{"client secret", s.app.ClientSecret},
		{"without roles", "client id " + s.bare.ClientID + ", client secret " + s.bare.ClientSecret},
	} {
		fmt.Fprintf(&b, "%-14s  %s\n", line[0], line[1])
	}
	fmt.Fprintf(&b, "\nFor a worker:\n\nexport DEFENDER_API_URL=%s\n", base)
	for _, v := range variables {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], session.ShellQuote(v[1]))
	}
	b.WriteString("\nInterrupt to end.\n")
	_, _ = io.WriteString(w, b.String())
}
