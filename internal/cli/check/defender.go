package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/service"
)

// defender checks the sign-in, the token and the API; conn may be nil.
func (k *Report) defender(ctx context.Context, conn *broker.Broker) {
	if k.mistaken("defender") {
		k.skip("token, API", "not tried until the configuration is mended")
		return
	}
	d := k.Env.Settings.Defender
	apiURL, scope, _, err := defender.Endpoints(d.Cloud)
	if err != nil {
		k.fail("token", err.Error(), "correct DEFENDER_CLOUD")
		return
	}
	if d.APIURL != "" {
		k.host(apiURL, d.APIURL)
		apiURL = d.APIURL
	} else {
		k.ok("API address", "%s, of the cloud %s", apiURL, d.Cloud)
	}
	if d.Scope != "" {
		scope = d.Scope
	}
	tokens := k.token(ctx, scope)
	if tokens == nil {
		k.apiWithoutToken(ctx, apiURL)
		return
	}
	defer tokens.Close()
	k.api(ctx, conn, tokens, apiURL)
}

// host compares an address that overrides the cloud's with the cloud's own.
func (k *Report) host(ofCloud, own string) {
	const what = "API address"
	want, host := hostname(ofCloud), hostname(own)
	for _, cloud := range []string{"gcc", "gcc-high"} { // dod is gcc-high's
		other, _, _, _ := defender.Endpoints(cloud)
		if host == hostname(other) && host != want {
			k.fail(what, own+" is of another cloud than "+k.Env.Settings.Defender.Cloud, "set DEFENDER_CLOUD="+cloud+" (or dod) and leave DEFENDER_API_URL out")
			return
		}
	}
	switch {
	case host == want || config.IsLoopback(host) || sameDomain(host, want):
		k.ok(what, "%s", own)
	default:
		k.warn(what, own+" is no host of the cloud "+k.Env.Settings.Defender.Cloud+"; tokens for the API are sent there",
			"leave DEFENDER_API_URL out, unless it is your own proxy")
	}
}

func hostname(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// sameDomain accepts the commercial cloud's other and regional hosts ([doc] exposed-apis-list.md).
func sameDomain(host, want string) bool {
	if want != "api.security.microsoft.com" {
		return false
	}
	return strings.HasSuffix(host, ".security.microsoft.com") || strings.HasSuffix(host, ".securitycenter.microsoft.com") ||
		strings.HasSuffix(host, ".securitycenter.windows.com")
}

// apiWithoutToken checks whether the API can be reached at all, if there is no token.
func (k *Report) apiWithoutToken(ctx context.Context, apiURL string) {
	const what = "API"
	ctx, cancel := context.WithTimeout(ctx, min(k.Env.Settings.Defender.Timeout, checkPatience))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, apiURL, http.NoBody)
	if err != nil {
		k.fail(what, err.Error(), "correct DEFENDER_API_URL")
		return
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request) // follows no redirect
	if err != nil {
		k.fail(what, err.Error(), unreachable)
		return
	}
	_ = response.Body.Close()
	k.skip(what, apiURL+" is reached; what it lets this app do can't be tried without a token")
}

const unreachable = "check DEFENDER_API_URL, DNS, the proxy (HTTPS_PROXY, NO_PROXY) and the firewall"

// api reads one machine action from the API, which changes nothing there.
func (k *Report) api(ctx context.Context, conn *broker.Broker, tokens *defender.Tokens, apiURL string) {
	const what = "API"
	calls := &rates.Visitor{}
	if conn != nil && !k.mistaken("budget") {
		var err error
		if calls, err = conn.VisitRates(ctx, config.Windows(k.Env.Settings.Rates)); err != nil {
			k.fail("call budget", err.Error(), "grant this user the UNRESTRICT_... streams")
			return
		}
	}
	client, err := defender.New(defender.Config{
		BaseURL: apiURL, UserAgent: "unrestrict-worker/" + service.ThisBuild().Version + " check", Timeout: k.Env.Settings.Defender.Timeout, StartLimit: budget.StartLimit,
	}, tokens, calls)
	if err != nil {
		k.fail(what, err.Error(), "correct DEFENDER_API_URL")
		return
	}
	defer client.Close()
	_, err = client.Page(ctx, defender.UseLookup, defender.Query{Top: 1, Newest: true})
	k.answer(what, apiURL, err)
	k.skew(client)
}

// answer reports what the API's answer to the list means.
func (k *Report) answer(what, apiURL string, err error) {
	_, waits := errors.AsType[*budget.WaitError](err)
	e, answered := errors.AsType[*defender.Error](err)
	switch {
	case err == nil:
		k.ok(what, "%s lets this app list machine actions", apiURL)
	case waits:
		k.warn(what, "not asked: "+err.Error(), "nothing: the workers use the call budget up; check again later")
	case !answered:
		k.fail(what, err.Error(), "try again")
	case e.Class == defender.Throttled:
		k.warn(what, "it answers, but throttles (429)", "nothing needs to be done unless it persists: then other programs use up the app's calls")
	case e.StatusCode == 0:
		k.fail(what, e.Error(), unreachable)
	case e.Reason != "":
		k.fail(what, e.Error(), e.Reason)
	case e.Class == defender.Reauthenticate:
		k.fail(what, e.Error(), "get a token that the API takes: check the sign-in, DEFENDER_SCOPE and the tenant")
	default:
		k.fail(what, e.Error(), "try again later; Microsoft 365's service health may say more")
	}
}

// mostSkew is how far apart the clocks may be without a warning.
const mostSkew = 30 * time.Second

func (k *Report) skew(client *defender.Client) {
	earliest, latest, measured := client.Clock()
	if !measured {
		return
	}
	ours := time.Now()
	off := ours.Sub(earliest.Add(latest.Sub(earliest) / 2)).Round(time.Second)
	switch {
	case off.Abs() > 5*time.Minute:
		k.fail("clock", fmt.Sprintf("this machine's is %s from the API's", off), "set it (NTP): tokens would be refused")
	case off.Abs() > mostSkew:
		k.warn("clock", fmt.Sprintf("this machine's is %s from the API's", off), "set it (NTP)")
	default:
		k.ok("clock", "within %s of the API's", mostSkew)
	}
}
