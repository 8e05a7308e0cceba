package defender

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// authorised is an API that takes the tokens that ok likes.
func authorised(t *testing.T, ok func(token string) bool) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !ok(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
			answer(401, `{"error":{"code":"Unauthorized","message":"no"}}`)(w, r)
			return
		}
		answer(201, created)(w, r)
	}).URL
}

// TestRefusedToken: a 401 drops the token; a fresh one that is refused too is the system's fault.
func TestRefusedToken(t *testing.T) {
	var good atomic.Value
	good.Store("opaque-token-1")
	source := numbered()
	c := clientOf(t, authorised(t, func(tok string) bool { return tok == good.Load() }), tokensOf(t, source), &openBudget{})
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	good.Store("opaque-token-2") // revoked
	p1, p2 := must(c.Ready(t.Context(), "normal")), must(c.Ready(t.Context(), "normal"))
	for _, p := range []Permit{p1, p2} {
		_, err := c.Unrestrict(t.Context(), p, machine, "why")
		if e := expect(t, err, Reauthenticate, "Unauthorized", true); e.Reason != "" {
			t.Error(e.Reason)
		}
	}
	if _, err := post(t.Context(), c); err != nil { // tried again at once
		t.Fatal(err)
	}
	good.Store("opaque-token-4")
	_, err := post(t.Context(), c)
	expect(t, err, Reauthenticate, "Unauthorized", true)
	_, err = post(t.Context(), c)
	if e := expect(t, err, System, "Unauthorized", true); e.Reason == "" {
		t.Error("no reason")
	}
	if _, err := post(t.Context(), c); err != nil { // the probe gets a fresh one
		t.Fatal(err)
	}
	if diff := cmp.Diff([]bool{false, true, true, true}, source.asked); diff != "" {
		t.Error(diff)
	}
}

// TestRefusedSameToken: a source that has only the refused token to give is the system's fault too, and is asked again.
func TestRefusedSameToken(t *testing.T) {
	var good atomic.Bool
	good.Store(true)
	source := always("opaque-token")
	c := clientOf(t, authorised(t, func(string) bool { return good.Load() }), tokensOf(t, source), &openBudget{})
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	good.Store(false)
	for _, want := range []Class{Reauthenticate, System, System, System} {
		_, err := post(t.Context(), c)
		expect(t, err, want, "Unauthorized", true)
	}
	if source.count() != 4 {
		t.Errorf("%d requests", source.count())
	}
	p1, p2 := must(c.Ready(t.Context(), "normal")), must(c.Ready(t.Context(), "normal"))
	for _, p := range []Permit{p2, p1} { // p2 found it in the cache: no other token is to be had for it either
		_, err := c.Unrestrict(t.Context(), p, machine, "why")
		expect(t, err, System, "Unauthorized", true)
	}
	good.Store(true)
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedLate: a token that lay idle is replaced before the system is blamed.
func TestRefusedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clientOf(t, nearby, tokensOf(t, numbered()), &openBudget{}, piped(t, 0, answer(401, "")))
		must(c.Ready(t.Context(), "normal"))
		time.Sleep(10 * time.Minute)
		for _, want := range []Class{Reauthenticate, System} { // the empty body of a gateway is no reason to keep a token
			_, err := post(t.Context(), c)
			expect(t, err, want, "http401", true)
		}
	})
}

// TestRefusedDuringRenewal: a cache that answers with the token that was refused meanwhile is passed by.
func TestRefusedDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{next: func(n int, fresh bool) (Token, error) {
			tok := Token{Value: "opaque-token-old", Expires: time.Now().Add(time.Hour), RefreshOn: time.Now().Add(time.Minute)}
			if fresh {
				tok.Value = "opaque-token-new"
			}
			if n > 1 {
				time.Sleep(time.Second)
			}
			return tok, nil
		}}
		tokens := tokensOf(t, source)
		b, _, _ := tokens.get(t.Context())
		time.Sleep(time.Minute)
		_, _ = value(t, tokens) // starts the renewal
		tokens.refuse(b)
		if v, err := value(t, tokens); v != "opaque-token-new" {
			t.Errorf("%q %v", v, err)
		}
		if diff := cmp.Diff([]bool{false, false, true}, source.asked); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRefusedThoughTaken: the token got for this very call is a fresh one, even if another call got on with it meanwhile.
func TestRefusedThoughTaken(t *testing.T) {
	c := clientOf(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			answer(401, "")(w, r)
			return
		}
		answer(200, `{"value":[]}`)(w, r)
	}).URL, tokensOf(t, numbered()), &openBudget{})
	p := must(c.Ready(t.Context(), "normal"))
	if _, err := c.Page(t.Context(), UseLookup, Query{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Unrestrict(t.Context(), p, machine, "why")
	expect(t, err, System, "http401", true)
}

// TestForbiddenByToken: a 403 is the request's own only for the very token that has had a POST accepted.
func TestForbiddenByToken(t *testing.T) {
	var refuse atomic.Bool
	refuse.Store(true)
	tokens := tokensOf(t, numbered())
	c := clientOf(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if refuse.Load() || r.Method == "GET" {
			answer(403, `{"error":{"code":"Forbidden","message":"Access is denied."}}`)(w, r)
			return
		}
		answer(201, created)(w, r)
	}).URL, tokens, &openBudget{})
	step := func(want Class) {
		t.Helper()
		_, err := post(t.Context(), c)
		expect(t, err, want, "Forbidden", true)
	}
	step(System)
	refuse.Store(false)
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	refuse.Store(true)
	step(Rejected)
	_, err := c.Page(t.Context(), UseLookup, Query{})
	expect(t, err, System, "Forbidden", true)
	b, _, _ := tokens.get(t.Context())
	tokens.refuse(b)
	step(System) // another token
}

// TestForbiddenBySameToken: the value is what was accepted, however often it is handed out.
func TestForbiddenBySameToken(t *testing.T) {
	var status atomic.Int32
	status.Store(201)
	tokens := tokensOf(t, always("opaque-token"))
	c := clientOf(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := created
		if status.Load() != 201 {
			body = `{"error":{"code":"Forbidden","message":"Access is denied."}}`
		}
		answer(int(status.Load()), body)(w, r)
	}).URL, tokens, &openBudget{})
	if _, err := post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	b, _, _ := tokens.get(t.Context())
	tokens.refuse(b)
	status.Store(403)
	_, err := post(t.Context(), c)
	expect(t, err, Rejected, "Forbidden", true)
}

// TestFreshOnce: once the refused token is replaced, renewals may use a cache again.
func TestFreshOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{next: func(n int, _ bool) (Token, error) {
			return Token{Value: fmt.Sprint("opaque-token-", n), Expires: time.Now().Add(time.Hour)}, nil
		}}
		tokens := tokensOf(t, source)
		b, _, _ := tokens.get(t.Context())
		tokens.refuse(b)
		_, _ = value(t, tokens)
		time.Sleep(2 * time.Hour)
		_, _ = value(t, tokens)
		if diff := cmp.Diff([]bool{false, true, false}, source.asked); diff != "" {
			t.Error(diff)
		}
	})
}
