package defender

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Endpoints are the addresses that belong together in one cloud: the API, the scope of its tokens and the
// authority that issues them ([doc] gov.md; the commercial API still needs tokens for its older resource,
// [doc] exposed-apis-create-app-webapp.md).
func Endpoints(cloud string) (apiURL, scope, authority string, err error) {
	const public, government = "https://login.microsoftonline.com/", "https://login.microsoftonline.us/"
	switch cloud {
	case "commercial":
		return "https://api.security.microsoft.com", "https://api.securitycenter.microsoft.com/.default", public, nil
	case "gcc":
		apiURL, authority = "https://api-gcc.securitycenter.microsoft.us", public
	case "gcc-high", "dod":
		apiURL, authority = "https://api-gov.securitycenter.microsoft.us", government
	default:
		return "", "", "", fmt.Errorf("no such cloud: %q (commercial, gcc, gcc-high, dod)", cloud)
	}
	return apiURL, apiURL + "/.default", authority, nil
}

// IsMicrosoft reports whether an API's address is one of Microsoft's. Any other is a simulator or a proxy.
func IsMicrosoft(apiURL string) bool {
	u, err := url.Parse(apiURL)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	return u.Scheme == "https" && (strings.HasSuffix(host, ".microsoft.com") || strings.HasSuffix(host, ".microsoft.us"))
}

// parseBaseURL reads the API's address: https, or http on a loopback host, with nothing
// after host and port. Its error never repeats raw, which may hold a password.
func parseBaseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Hostname() == "" || !validPort(u.Port()) {
		return nil, errors.New("no valid address: write it as https://HOST or https://HOST:PORT")
	}
	switch {
	case u.User != nil:
		return nil, errors.New("leave out user and password: sign-in is by DEFENDER_AUTH")
	case strings.TrimSuffix(u.Path, "/") != "":
		return nil, errors.New("leave out the path: the client adds /api/... itself")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return nil, errors.New("leave out everything after host and port")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, errors.New("use https: a bearer token goes over plain http to a loopback host alone")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("use https://")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
