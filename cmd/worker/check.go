package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// check makes typed settings of the declared ones and collects every mistake:
// first each value by itself, then what must hold between them.
func check(settings []*setting, f *settingFlags) (Settings, []Mistake) {
	c := &checker{settings: map[*string]*setting{}}
	for _, s := range settings {
		c.settings[s.value] = s
	}
	const positive = time.Millisecond
	b, n, w, a, d := &f.Broker, &f.Names, &f.Work, &f.Acceptance, &f.Defender
	signers := c.signers(&a.TrustedSigners, &a.TrustedSignersFile)
	s := Settings{
		NATS: NATSSettings{
			URLs: c.servers(&b.URL), Creds: c.file(&b.Creds), Nkey: c.file(&b.Nkey), User: b.User,
			Password: c.secret(&b.Password, &b.PasswordFile), Token: c.secret(&b.Token, &b.TokenFile),
			CA: c.file(&b.CA), Cert: c.file(&b.Cert), Key: c.file(&b.Key),
		},
		Embedded: EmbeddedSettings{
			Addr: c.address(&f.Embedded.Addr), Token: c.secret(&f.Embedded.Token, &f.Embedded.TokenFile),
		},
		Names: NameSettings{
			Subject: c.subject(&n.Subject), Stream: c.streamName(&n.Stream), Consumer: c.name(&n.Consumer),
			ResultsSubject: c.subject(&n.ResultsSubject), ResultsStream: c.streamName(&n.ResultsStream),
			DeadletterSubject: c.subject(&n.DeadletterSubject), DeadletterStream: c.streamName(&n.DeadletterStream),
		},
		Provision: c.toggle(&f.Provisioning.Provision),
		Replicas:  c.integer(&f.Provisioning.Replicas, 1, 5),
		DataDir:   c.notEmpty(&f.Store.DataDir),

		Concurrency: c.integer(&w.Concurrency, 1, 1024),
		AckWait:     c.duration(&w.AckWait, time.Second),
		Backoff: BackoffSettings{
			Initial: c.duration(&w.BackoffInitial, positive), Max: c.duration(&w.BackoffMax, positive),
			Multiplier: c.number(&w.BackoffMultiplier, 1, 100), Randomization: c.number(&w.BackoffRandomization, 0, 1),
		},
		GiveUpAfter:     c.duration(&w.GiveUpAfter, positive),
		ReconcileDelay:  c.duration(&w.ReconcileDelay, positive),
		DryRun:          c.toggle(&w.DryRun),
		ShutdownTimeout: c.duration(&w.ShutdownTimeout, 0),

		Rates: Rates{PerMinute: c.integer(&f.Budget.Minute, 0, 1_000_000), PerHour: c.integer(&f.Budget.Hour, 0, 1_000_000)},
		Track: TrackSettings{
			Enabled:      c.toggle(&f.Following.Track),
			PollInterval: c.duration(&f.Following.PollInterval, 100*time.Millisecond),
			Timeout:      c.duration(&f.Following.TrackTimeout, positive),
		},
		Accept: AcceptSettings{
			Signers: signers, Policy: c.policy(&a.PolicyFile, signers),
			MaxRequestAge: c.duration(&a.MaxRequestAge, 0), GuardAfter: c.duration(&a.GuardAfter, 0),
		},
		Defender: DefenderSettings{
			Cloud: c.oneOf(&d.Cloud), APIURL: c.apiURL(&d.APIURL), Scope: d.Scope, Auth: c.oneOf(&d.Auth), TokenFile: d.TokenFile,
			DisableInstanceDiscovery: c.toggle(&d.DisableInstanceDiscovery), Timeout: c.duration(&d.Timeout, 100*time.Millisecond),
		},
		Admin: AdminSettings{Addr: c.address(&f.Admin.Addr), Token: c.secret(&f.Admin.Token, &f.Admin.TokenFile)},
		Log:   LogSettings{Level: c.oneOf(&f.Log.Level), Format: c.oneOf(&f.Log.Format)},
	}
	c.together(f, s)
	return s, c.mistakes
}

// together checks what must hold between settings.
func (c *checker) together(f *settingFlags, s Settings) {
	c.signIn(&f.Broker, s.NATS)
	if s.Embedded.Addr != "" && f.Broker.URL == "" && !isLoopback(hostOf(s.Embedded.Addr)) && !s.Embedded.Token.IsSet() {
		c.mistake(&f.Embedded.Addr, "anyone could publish requests there; give an address on loopback, such as 127.0.0.1:4222, or make clients sign in with WORKER_EMBEDDED_TOKEN")
	}
	c.distinct("subject", &f.Names.Subject, &f.Names.ResultsSubject, &f.Names.DeadletterSubject)
	c.distinct("stream", &f.Names.Stream, &f.Names.ResultsStream, &f.Names.DeadletterStream)
	if !slices.Contains([]int{0, 1, 3, 5}, s.Replicas) {
		c.mistake(&f.Provisioning.Replicas, "JetStream needs an odd number to agree; give 1, 3 or 5")
	}
	if s.Backoff.Max > 0 && s.Backoff.Max < s.Backoff.Initial {
		c.mistake(&f.Work.BackoffMax, "give at least WORKER_BACKOFF_INITIAL, "+s.Backoff.Initial.String())
	}
	if f.Acceptance.PolicyFile != "" && f.Acceptance.TrustedSigners == "" && f.Acceptance.TrustedSignersFile == "" {
		c.mistake(&f.Acceptance.PolicyFile, "it says what each signer may ask, and without WORKER_TRUSTED_SIGNERS nobody signs: give the signers, or leave the policy out")
	}
	if s.Defender.Auth == "token-file" && s.Defender.TokenFile == "" {
		c.mistake(&f.Defender.TokenFile, "DEFENDER_AUTH=token-file needs it; give the path of a file with a bearer token")
	}
}

// signIn checks that there is one way of signing in to the broker, and that
// its files hold what they should: a broker would only say that it refuses.
func (c *checker) signIn(b *brokerFlags, s NATSSettings) {
	var ways []string
	for way, used := range map[string]bool{
		"NATS_CREDS": b.Creds != "", "NATS_NKEY": b.Nkey != "", "NATS_USER": b.User != "", "NATS_TOKEN": s.Token.IsSet(),
	} {
		if used {
			ways = append(ways, way)
		}
	}
	if slices.Sort(ways); len(ways) > 1 {
		c.mistake(c.field(ways[1]), "give one way of signing in; there are "+fmt.Sprint(ways))
	}
	if s.Password.IsSet() && b.User == "" {
		c.mistake(&b.User, "NATS_PASSWORD needs it; give the user's name")
	}
	if s.CA != "" {
		if data, err := os.ReadFile(s.CA); err == nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
			c.mistake(&b.CA, "it holds no certificate; give a file with certificates in PEM form")
		}
	}
	switch {
	case b.Cert != "" && b.Key == "":
		c.mistake(&b.Key, "NATS_CERT needs it; give the path of the certificate's key")
	case b.Cert == "" && b.Key != "":
		c.mistake(&b.Cert, "NATS_KEY needs it; give the path of the key's certificate")
	case s.Cert != "" && s.Key != "":
		if _, err := tls.LoadX509KeyPair(s.Cert, s.Key); err != nil {
			c.mistake(&b.Cert, "it is no pair with NATS_KEY ("+err.Error()+"); give a certificate and its key in PEM form")
		}
	}
}

// distinct refuses a name that another setting has too.
func (c *checker) distinct(what string, fields ...*string) {
	for i, field := range fields {
		for _, earlier := range fields[:i] {
			if *field == *earlier && *field != "" {
				c.mistake(field, "that is the "+what+" of "+c.settings[earlier].env+" too; give each its own")
			}
		}
	}
}

// field finds a setting's field by its variable.
func (c *checker) field(env string) *string {
	for field, s := range c.settings {
		if s.env == env {
			return field
		}
	}
	panic(strconv.Quote(env) + " is not declared")
}
