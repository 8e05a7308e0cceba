package broker

import (
	"net/url"

	"github.com/nats-io/jwt/v2"
)

// User is the NATS user that this connection is signed in as: a name, or a public nkey. It is "" where the broker asks
// nobody who he is, or for a token or a certificate alone.
func (b *Broker) User() string {
	if !b.nc.AuthRequired() {
		return ""
	}
	o := b.nc.Opts
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
	if o.User != "" {
		return o.User
	}
	for _, server := range o.Servers {
		if u, err := url.Parse(server); err == nil && u.User != nil {
			if _, password := u.User.Password(); password { // else it is a token
				return u.User.Username()
			}
		}
	}
	return ""
}
