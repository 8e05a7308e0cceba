package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/defender"
)

// token gets a token and checks its claims; nil: there is none.
func (k *Report) token(ctx context.Context, scope string) *defender.Tokens {
	const what = "token"
	d := k.Env.Settings.Defender
	getenv := func(name string) string { v, _ := k.Env.Lookup(name); return v }
	source, err := defender.NewCredential(defender.CredentialConfig{
		Mode: d.Auth, Cloud: d.Cloud, TokenFile: d.TokenFile, DisableInstanceDiscovery: d.DisableInstanceDiscovery, Getenv: getenv,
		Prompt: func(text string) { fmt.Fprintln(k.Env.Stderr, session.Plain(text)) },
	})
	if err != nil {
		k.fail(what, err.Error(), "set what is missing, or choose another way of signing in (DEFENDER_AUTH)")
		return nil
	}
	tokens := defender.NewTokens(source, scope)
	claims, err := tokens.Claims(ctx)
	if err != nil {
		tokens.Close()
		text := err.Error()
		if e, ok := errors.AsType[*defender.Error](err); ok {
			text = e.Message
		}
		k.fail(what, text, "check the sign-in: DEFENDER_AUTH="+d.Auth+", which takes "+defender.SignsInWith(d.Auth))
		return nil
	}
	if !claims.OK {
		k.warn(what, "there is one, but it can't be read: its roles are not known", "nothing, if the API takes it below; only a request shows whether it may unrestrict")
		return tokens
	}
	k.expiry(claims)
	k.audience(claims, scope)
	k.roles(claims)
	return tokens
}

func (k *Report) expiry(c defender.TokenClaims) {
	const what = "token"
	text := "there is one"
	if c.AppID != "" {
		text += " for the app " + c.AppID
	}
	if c.TenantID != "" {
		text += " in the tenant " + c.TenantID
	}
	switch left := time.Until(c.Expires); {
	case c.Expires.IsZero():
		k.ok(what, "%s", text)
	case left < 5*time.Minute:
		k.warn(what, fmt.Sprintf("%s; it is good for %s only", text, admin.Roughly(left)), "see that it is renewed in time; if it is new, set this machine's clock")
	default:
		k.ok(what, "%s, good for %s", text, admin.Roughly(left))
	}
}

// defenderApp is the API's own app id, which a token may name as its audience ([doc] WindowsDefenderATP).
const defenderApp = "fc780465-2017-40d4-a0c5-307022471b92"

func (k *Report) audience(c defender.TokenClaims, scope string) {
	const what = "token audience"
	want := strings.TrimSuffix(strings.TrimSuffix(scope, ".default"), "/")
	fits := func(audience string) bool {
		return strings.EqualFold(strings.TrimSuffix(audience, "/"), want) || strings.EqualFold(audience, defenderApp)
	}
	said := strings.Join(c.Audience, ", ")
	switch {
	case slices.ContainsFunc(c.Audience, fits):
		k.ok(what, "%s", said)
	case said == "":
		k.warn(what, "it names none", "get tokens for "+scope)
	default:
		k.warn(what, said+" instead of "+want+": the API may answer 403", "get tokens for the scope "+scope+" (DEFENDER_SCOPE)")
	}
}

// roles compares the permissions of the token with those that are needed ([doc] unrestrict-code-execution.md,
// get-machineactions-collection.md; delegated permissions have no .All).
func (k *Report) roles(c defender.TokenClaims) {
	const what = "token permissions"
	bears := slices.Concat(c.Roles, c.Scopes)
	said := "it bears " + strings.Join(bears, ", ")
	if len(bears) == 0 {
		said = "it bears none"
	}
	has := func(any ...string) bool {
		return slices.ContainsFunc(any, func(role string) bool { return slices.Contains(bears, role) })
	}
	const grant = ", give admin consent, and get a new token"
	restrict, read := has("Machine.RestrictExecution"), has("Machine.Read.All", "Machine.ReadWrite.All", "Machine.Read", "Machine.ReadWrite")
	if !restrict {
		k.fail(what, "Machine.RestrictExecution is missing, which the calls need; "+said, "grant the app Machine.RestrictExecution"+grant)
	}
	if !read {
		k.fail(what, "Machine.Read.All (or Machine.ReadWrite.All) is missing, which following and look-ups need; "+said, "grant the app Machine.Read.All"+grant)
	}
	if restrict && read {
		k.ok(what, "%s", said)
	}
}
