package main

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// address checks host:port; the host may be empty, the port 0.
func (c *checker) address(field *string) string {
	_, port, err := net.SplitHostPort(*field)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.mistake(field, "give an address and a port, such as "+c.settings[field].fallback())
		return ""
	}
	return *field
}

// hostOf returns the host of an address that address has checked.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// isLoopback tells whether a host is this machine alone. No name but localhost
// is: what others resolve to can change.
func isLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// servers checks NATS_URL as nats.go reads it: a scheme may be left out.
func (c *checker) servers(field *string) []string {
	var all []string
	for one := range strings.SplitSeq(*field, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			c.mistake(field, "give servers such as nats://HOST:4222, comma-separated; the scheme may be nats, tls, ws or wss")
			return nil
		}
		all = append(all, one)
	}
	if *field != "" && len(all) == 0 {
		c.mistake(field, "there is no server in it; give one, or leave the setting out for the embedded broker")
	}
	return all
}

// apiURL checks DEFENDER_API_URL: bearer tokens go there, so plain HTTP is for
// this machine alone.
func (c *checker) apiURL(field *string) string {
	if *field == "" {
		return ""
	}
	u, err := url.Parse(*field)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		c.mistake(field, "give https://HOST or https://HOST:PORT")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		c.mistake(field, "tokens would cross the network in clear; give https, or a host on loopback")
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		c.mistake(field, "give scheme, host and port alone, without a path, a query or a user")
	default:
		return u.Scheme + "://" + strings.TrimSuffix(u.Host, ":")
	}
	return ""
}
