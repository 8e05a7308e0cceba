package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/ledger"
)

// checkPatience bounds each step that a broker or a network may leave hanging.
const checkPatience = 10 * time.Second

// broker checks the addresses and signs in; nil: there is no connection to go on with.
func (k *Report) broker(ctx context.Context) *broker.Broker {
	const what = "broker"
	if k.mistaken("broker", "embedded", "names", "provisioning") {
		k.skip(what, "not tried until the configuration is mended")
		return nil
	}
	if !k.addresses(ctx) {
		k.skip("broker sign-in, streams, permissions", "not tried without an address that answers")
		return nil
	}
	cfg := config.BrokerConfig(k.Env.Settings)
	cfg.ClientName, cfg.Provision, cfg.ReadOnly = "unrestrict-worker check", false, true
	dialing, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	conn, err := broker.Dial(dialing, cfg, zap.NewNop())
	if err != nil {
		do := "check " + brokerVariable(k.Env.Settings) + " and what the broker's own log says"
		text := err.Error()
		if refused, ok := errors.AsType[*broker.RefusedError](err); ok {
			text, do = fmt.Sprintf("%s: %v", refused.URL, refused.Err), refused.Advice
		}
		if variables, found := strings.CutPrefix(do, "it refuses the sign-in ("); found {
			do = "correct " + strings.TrimSuffix(variables, ")") + ", or let this user in there"
		}
		k.fail("broker sign-in", text, do)
		k.skip("streams, permissions", "not tried without a connection")
		return nil
	}
	secured := "without TLS"
	if _, err := conn.Conn().TLSConnectionState(); err == nil {
		secured = "with TLS"
	}
	k.ok("broker sign-in", "accepted %s by %s, NATS %s", secured, conn.Conn().ConnectedAddr(), conn.Conn().ConnectedServerVersion())
	if small := conn.SmallPayload(); small != "" {
		k.warn("broker message size", small, fmt.Sprintf("set max_payload: %d there, or let no request be so large", ledger.LeastMaxPayload))
	}
	return conn
}

// addresses looks up and connects to each server; one that answers is enough.
func (k *Report) addresses(ctx context.Context) bool {
	s := k.Env.Settings
	servers := s.NATS.URLs
	if len(servers) == 0 {
		servers = []string{"nats://" + broker.Dialable(s.Embedded.Addr)}
	}
	answer := false
	type failure struct{ addr, text, do string }
	var failures []failure
	for _, server := range servers {
		addr := natsAddress(server)
		text, do := k.reach(ctx, addr)
		if text == "" {
			answer = true
			k.ok("broker address", "%s takes connections", addr)
			continue
		}
		failures = append(failures, failure{addr, text, do})
	}
	for _, f := range failures {
		if answer {
			k.warn("broker address", f.addr+": "+f.text, f.do)
		} else {
			k.fail("broker address", f.addr+": "+f.text, f.do)
		}
	}
	return answer
}

// reach returns what is wrong with an address, and what to do; "": nothing.
func (k *Report) reach(ctx context.Context, addr string) (text, do string) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err == nil {
		_ = conn.Close()
		return "", ""
	}
	variable := brokerVariable(k.Env.Settings)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case isDNS:
		return "the name is not found: " + dns.Err, "correct the host in " + variable + ", or this machine's DNS"
	case variable == "NATS_URL":
		return reason(err), "start the broker, correct NATS_URL, or open the way to it (firewall, network policy)"
	}
	return "nothing listens there: " + reason(err), "start `worker run`, whose embedded broker this is, or set NATS_URL for another one"
}

// reason is an error of dialling without the address, which is printed with it.
func reason(err error) string {
	if dial, ok := errors.AsType[*net.OpError](err); ok {
		err = dial.Err
	}
	return err.Error()
}

// natsAddress is host and port of a server as nats.go reads it.
func natsAddress(server string) string {
	u, err := url.Parse(server)
	if err != nil { // checked with the settings
		return server
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	if port == "" {
		port = "4222"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// streams compares what exists with what is needed, and changes nothing.
func (k *Report) streams(ctx context.Context, conn *broker.Broker) {
	const what = "streams"
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	err := conn.Provision(ctx)
	if err == nil {
		k.ok(what, "streams, consumer and buckets are there and fit")
		for _, d := range conn.Differences() {
			k.warn(what, d, "nothing, if it is meant so; the worker never alters it")
		}
		return
	}
	unfit, isUnfit := errors.AsType[*broker.UnfitError](err)
	missing, isMissing := errors.AsType[*broker.MissingError](err)
	if isUnfit {
		for _, reason := range unfit.Reasons {
			k.fail(what, reason, "change or delete it, or choose another name in the configuration")
		}
	}
	if isMissing {
		k.missing(what, missing.Missing)
	}
	denied, isDenied := errors.AsType[*broker.DeniedError](err)
	switch {
	case isDenied:
		k.fail(what, fmt.Sprint(denied.Err), "grant this user that subject")
	case !isUnfit && !isMissing:
		k.fail(what, err.Error(), "see that JetStream is on for this account and has its quorum")
	}
}

// missing reports what does not exist and, if the worker must not create it, how to.
func (k *Report) missing(what string, all []string) {
	var names []string
	for _, m := range all {
		name, how, _ := strings.Cut(m, ": ")
		names = append(names, name)
		if !k.Env.Settings.Provision {
			k.fail(what, name+" is missing and WORKER_PROVISION is false", how)
		}
	}
	if k.Env.Settings.Provision {
		k.warn(what, "missing: "+strings.Join(names, ", "), "nothing: `worker run` creates what is missing (WORKER_PROVISION)")
	}
}

// permissions tries each permission that can be tried without leaving a trace.
func (k *Report) permissions(ctx context.Context, conn *broker.Broker) {
	const what = "permissions"
	tried, denied := 0, 0
	for _, p := range conn.Permissions() {
		err := p.Try(ctx, conn)
		if errors.Is(err, broker.ErrNotTestable) {
			continue
		}
		tried++
		if err == nil {
			continue
		}
		denied++
		text := p.What + ": " + err.Error()
		if refused, ok := errors.AsType[*broker.DeniedError](err); ok {
			text = p.What + ": " + refused.Err.Error()
		}
		if p.Own {
			k.fail(what, text, "grant this user that subject")
		} else {
			k.warn(what, text, "nothing for the worker, but with these credentials `submit` and `deadletter replay` can't publish")
		}
	}
	switch {
	case tried == 0:
		k.skip(what, "not tried without streams")
	case denied == 0:
		k.ok(what, "the worker may take requests and publish wherever it has to")
	}
}
