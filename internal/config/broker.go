package config

import (
	"strings"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
)

// BrokerConfig is the configuration of the broker that the settings give.
func BrokerConfig(s Settings) broker.Config {
	return broker.Config{
		URL: strings.Join(s.NATS.URLs, ","),
		Auth: broker.Auth{
			Creds: s.NATS.Creds, NKey: s.NATS.Nkey, User: s.NATS.User, Password: s.NATS.Password.Reveal(), PasswordFile: s.NATS.Password.File(),
			Token: s.NATS.Token.Reveal(), TokenFile: s.NATS.Token.File(), CA: s.NATS.CA, Cert: s.NATS.Cert, Key: s.NATS.Key, TLSFirst: s.NATS.TLSFirst,
		},
		Domain: s.NATS.Domain, InboxPrefix: s.NATS.InboxPrefix,
		DataDir: s.DataDir, EmbeddedAddr: s.Embedded.Addr, EmbeddedToken: s.Embedded.Token.Reveal(),
		Names: broker.Names(s.Names), Tenant: s.Tenant,
		Provision: s.Provision, Replicas: s.Replicas, AckWait: s.AckWait, Windows: Windows(s.Rates),
	}
}

// Windows are the budget's windows.
func Windows(r Rates) []budget.Window { return budget.Limits(r.PerMinute, r.PerHour) }
