package broker

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
)

// Auth is how to sign in to a remote broker, as the nats command reads the
// NATS_... variables: user and password take precedence over credentials, and
// these over an nkey; a token is sent in addition to any of them, and a user
// without a password is a token. Files are read again at each sign-in, so that
// their secrets can be rotated.
type Auth struct {
	Creds, NKey             string // files: user JWT with its seed; seed
	User, Password, Token   string
	PasswordFile, TokenFile string // the files that Password and Token were read from; "": no file
	CA, Cert, Key           string // files, PEM
	TLSFirst                bool   // the connection begins with the TLS handshake
}

// RefusedError is a refusal for which waiting does not help: the broker refuses
// the sign-in, or this side does not trust the broker's certificate.
type RefusedError struct {
	URL    string // without credentials
	Advice string
	Err    error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("broker %s: %v: %s", e.URL, e.Err, e.Advice)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// servers returns the URLs as configured, and without credentials. The error for
// a URL that can't be parsed does not repeat it: it may contain a password.
func (c Config) servers() (urls, redacted []string, err error) {
	for s := range strings.SplitSeq(c.URL, ",") {
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			return nil, nil, errors.New("NATS_URL has a server that is no URL")
		}
		urls, redacted = append(urls, s), append(redacted, u.Scheme+"://"+u.Host)
	}
	return urls, redacted, nil
}

// options returns the sign-in's options. It also reads every file that the sign-in
// needs, so that a missing file is reported as a mistake in the configuration, and
// not as a broker that is not reachable.
func (a Auth) options() ([]nats.Option, error) {
	var opts []nats.Option
	switch {
	case a.User != "" && a.Password != "":
		password := latest(a.PasswordFile, a.Password)
		opts = append(opts, nats.UserInfoHandler(func() (string, string) { return a.User, password() }))
	case a.Creds != "":
		creds := nats.UserCredentials(a.Creds)
		var read nats.Options
		if err := creds(&read); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		if _, err := read.UserJWT(); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		if _, err := read.SignatureCB([]byte("a nonce")); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		opts = append(opts, creds)
	case a.NKey != "":
		seed, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			return nil, fmt.Errorf("NATS_NKEY: %w", err)
		}
		opts = append(opts, seed)
	}
	switch {
	case a.Token != "" && a.TokenFile != "":
		opts = append(opts, nats.TokenHandler(latest(a.TokenFile, a.Token)))
	case a.Token != "":
		opts = append(opts, nats.Token(a.Token))
	case a.Password == "" && a.User != "":
		opts = append(opts, nats.Token(a.User))
	}
	if a.Cert != "" {
		opts = append(opts, nats.ClientCert(a.Cert, a.Key))
	}
	if a.CA != "" {
		opts = append(opts, nats.RootCAs(a.CA))
	}
	if a.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	return opts, nil
}

// latest returns a function that reads a file's present content. While the file can't be read or is empty, because it is just
// being written, the function returns the previous content. Without a file it returns value.
func latest(file, value string) func() string {
	return func() string {
		if file == "" {
			return value
		}
		if content, err := os.ReadFile(file); err == nil {
			value = cmp.Or(strings.TrimRight(string(content), "\r\n"), value)
		}
		return value
	}
}

// renewKey updates the public key from the seed file; the client library calls it before each attempt to reconnect. The library
// reads the seed again for each signature, but keeps the first public key. It holds the connection's lock during this call, so
// writing Opts.Nkey, which it reads under that lock, is safe.
func (b *Broker) renewKey([]nats.Server, nats.ServerInfo) (*nats.Server, time.Duration) {
	nc := b.signedIn.Load()
	option, err := nats.NkeyOptionFromSeed(b.cfg.Auth.NKey)
	if nc != nil && err == nil {
		_ = option(&nc.Opts) // it can't fail for a key that was read
	}
	return nil, 0 // the next server of the list, after the usual wait
}

// refusal is what to do about an error for which waiting does not help; "" for any other error.
func (b *Broker) refusal(err error) string {
	for _, refused := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported} {
		if errors.Is(err, refused) {
			return "it refuses the sign-in " + b.signIn()
		}
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var remote *net.OpError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &plain) && b.cfg.Auth.TLSFirst:
		return "it does not begin with TLS: take NATS_TLS_FIRST out of the configuration, or set handshake_first there"
	case errors.As(err, &unknown):
		return "set NATS_CA to a file with the authority that signed its certificate"
	case errors.As(err, &name):
		return "use a name in NATS_URL that its certificate bears"
	case errors.As(err, &invalid):
		return "have the certificate of the server in NATS_URL renewed, or correct this machine's clock or NATS_CA, against which it is checked"
	case errors.As(err, &remote) && remote.Op == "remote error" && strings.Contains(remote.Err.Error(), "certificate"):
		return "it refuses the client certificate: check NATS_CERT and NATS_KEY"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "it offers no TLS: take NATS_CA, NATS_CERT and tls:// out of the configuration, or turn TLS on there"
	}
	return ""
}

// sendsSecret reports whether the sign-in sends a password or a token, instead of a signature.
func (c Config) sendsSecret() bool {
	return c.URL != "" && (c.Auth.Password != "" || c.Auth.Token != "" || c.Auth.User != "" || strings.Contains(c.URL, "@"))
}

// onLoopback reports whether an address is on this machine; so is "", the address of a server in this process.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip := net.ParseIP(host)
	return ip == nil || ip.IsLoopback()
}

// signIn names the variables that configure the sign-in.
func (b *Broker) signIn() string {
	switch {
	case b.cfg.URL == "" && b.tokenFile == "":
		return "(WORKER_EMBEDDED_TOKEN)"
	case b.cfg.URL == "" && b.cfg.EmbeddedToken == "":
		return "without a token: " + b.tokenFile + " is not there; set WORKER_DATA_DIR to that of the running worker, whose file token has it, or WORKER_EMBEDDED_TOKEN"
	case b.cfg.URL == "":
		return "(the token in " + b.tokenFile + ", WORKER_DATA_DIR)"
	}
	a := b.cfg.Auth
	var used []string
	for _, v := range [][2]string{
		{"NATS_USER", a.User},
		{"NATS_PASSWORD", a.Password},
		{"NATS_CREDS", a.Creds},
		{"NATS_NKEY", a.NKey},
		{"NATS_TOKEN", a.Token},
		{"NATS_CERT", a.Cert},
	} {
		if v[1] != "" {
			used = append(used, v[0])
		}
	}
	if strings.Contains(b.cfg.URL, "@") {
		used = append(used, "NATS_URL")
	}
	if used == nil {
		return "without credentials: set NATS_CREDS, NATS_NKEY, NATS_USER and NATS_PASSWORD, or NATS_TOKEN"
	}
	return "(" + strings.Join(used, ", ") + ")"
}

// User is the NATS user of this connection: a name, or a public nkey. It is "" if the broker requires no sign-in, or if the
// sign-in is only a token or a certificate.
func (b *Broker) User() string {
	auth, err := b.cfg.Auth.options()
	if err != nil || !b.nc.AuthRequired() {
		return ""
	}
	var o nats.Options
	for _, option := range auth {
		if option(&o) != nil {
			return ""
		}
	}
	if o.UserJWT != nil {
		if token, err := o.UserJWT(); err == nil {
			if claims, err := jwt.DecodeUserClaims(token); err == nil && claims.Name != "" {
				return claims.Name
			} else if err == nil {
				return claims.Subject
			}
		}
	}
	if o.Nkey != "" {
		return o.Nkey
	}
	if o.UserInfo != nil {
		name, _ := o.UserInfo()
		return name
	}
	servers, _, _ := b.cfg.servers()
	for _, server := range servers {
		if u, err := url.Parse(server); err == nil && u.User != nil {
			if _, password := u.User.Password(); password { // without a password it is a token
				return u.User.Username()
			}
		}
	}
	return ""
}
