package broker

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Validate lists every mistake in the configuration, by the names of the variables.
func (c Config) Validate() error {
	c = c.withDefaults()
	_, _, err := c.servers()
	errs := []error{err}
	if c.URL == "" && c.EmbeddedAddr != "" {
		errs = append(errs, CheckEmbeddedAddr(c.EmbeddedAddr, c.EmbeddedToken))
	}
	if (c.Auth.Cert == "") != (c.Auth.Key == "") {
		errs = append(errs, errors.New("NATS_CERT and NATS_KEY: one needs the other"))
	}
	if c.Auth.User == "" && c.Auth.Password != "" {
		errs = append(errs, errors.New("NATS_PASSWORD without NATS_USER"))
	}
	if c.Replicas < 1 || c.Replicas > server.StreamMaxReplicas {
		errs = append(errs, fmt.Errorf("WORKER_REPLICAS: %d is not between 1 and %d", c.Replicas, server.StreamMaxReplicas))
	}
	if c.AckWait < time.Second {
		errs = append(errs, fmt.Errorf("WORKER_ACK_WAIT: %s is less than 1s", c.AckWait))
	}
	return errors.Join(append(errs, c.Names.validate()...)...)
}

func (n Names) validate() (errs []error) {
	subjects := [][2]string{{"WORKER_SUBJECT", n.Subject}, {"WORKER_RESULTS_SUBJECT", n.ResultsSubject}, {"WORKER_DEADLETTER_SUBJECT", n.DeadletterSubject}}
	streams := [][2]string{{"WORKER_STREAM", n.Stream}, {"WORKER_RESULTS_STREAM", n.ResultsStream}, {"WORKER_DEADLETTER_STREAM", n.DeadletterStream}}
	for _, s := range subjects {
		if !server.IsValidLiteralSubject(s[1]) || strings.HasPrefix(s[1], "$") {
			errs = append(errs, fmt.Errorf("%s: %q is no subject to publish to", s[0], s[1]))
		}
	}
	for _, s := range append(streams, [2]string{"WORKER_CONSUMER", n.Consumer}) {
		if strings.ContainsAny(s[1], ".*>/\\ \t\r\n\f") {
			errs = append(errs, fmt.Errorf("%s: %q: a name has no space and none of . * > / \\", s[0], s[1]))
		}
	}
	subjects = append(subjects, [2]string{"the audit trail", AuditSubject})
	streams = append(streams, [2]string{"the audit trail", AuditStream})
	for _, names := range [][][2]string{subjects, streams} {
		for i, s := range names {
			if j := slices.IndexFunc(names[:i], func(t [2]string) bool { return t[1] == s[1] }); j >= 0 {
				errs = append(errs, fmt.Errorf("%s and %s are both %q", names[j][0], s[0], s[1]))
			}
		}
	}
	return errs
}

// servers are the URLs as they are and without credentials. A URL that can't
// be read is not repeated in the error: it may hold a password.
func (c Config) servers() (urls, redacted []string, err error) {
	for i, s := range strings.Split(c.URL, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		// An @ behind the host is the rest of a password with a / or ? in it,
		// and the host its beginning.
		if err != nil || u.Hostname() == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") ||
			!slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return nil, nil, fmt.Errorf("NATS_URL: server %d is not of the form nats://HOST:PORT (or tls, ws, wss)", i+1)
		}
		urls = append(urls, s)
		redacted = append(redacted, u.Scheme+"://"+u.Host)
	}
	if c.URL != "" && len(urls) == 0 {
		return nil, nil, errors.New("NATS_URL names no server")
	}
	return urls, redacted, nil
}
