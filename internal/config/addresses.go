package config

import (
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// isAddress tells whether a text is host:port; the host may be empty, the port 0.
func isAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// hostOf returns the host of an address.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// IsLoopback tells whether a host is this machine alone. No name but localhost
// is: what others resolve to can change.
func IsLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// parseServers reads NATS_URL as nats.go does: a scheme may be left out.
func parseServers(text string) (any, error) {
	var all []string
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		// An @ behind the host is the rest of a password with a / or ? in it, and the host its beginning.
		if err != nil || u.Hostname() == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return nil, errors.New("give servers such as nats://HOST:4222, comma-separated; the scheme may be nats, tls, ws or wss")
		}
		all = append(all, one)
	}
	return all, must(text == "" || len(all) > 0, "there is no server in it; give one, or leave the setting out for the embedded broker")
}

// parseAPIURL checks DEFENDER_API_URL: bearer tokens go there, so plain HTTP is
// for this machine alone.
func parseAPIURL(text string) (any, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("give https://HOST or https://HOST:PORT")
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return nil, errors.New("tokens would cross the network in clear; give https, or a host on loopback")
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("give scheme, host and port alone, without a path, a query or a user")
	}
	return u.Scheme + "://" + strings.TrimSuffix(u.Host, ":"), nil
}
