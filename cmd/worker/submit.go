package main

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/remediation"
)

// signFor is how long a signed request without expiresAt is good for.
const signFor = 24 * time.Hour

// Run checks everything first, and then publishes it, or nothing.
func (c *SubmitCmd) Run(ctx context.Context, env *Env) error {
	s, done, err := c.prepare(ctx, env)
	if err != nil {
		return err
	}
	defer done()
	s.sayRepeated()
	if c.ValidateOnly {
		fmt.Fprintf(env.Stdout, "%s in good form; nothing was published.\n", count(s.rows, "request", "requests"))
		return nil
	}
	return s.carryOut(ctx, c.Report)
}

// prepare reads and checks. The caller calls done at the end.
func (c *SubmitCmd) prepare(ctx context.Context, env *Env) (_ *submission, done func(), err error) {
	s := &submission{env: env, wait: c.Wait, timeout: c.Timeout}
	if s.bulk, done, err = c.bulk(ctx, env); err != nil {
		return nil, nil, err
	}
	s.harvest = newHarvest(s.bulk.rules.Stream)
	s.harvest.signer = s.bulk.signer
	if s.rows, err = s.bulk.check(s.harvest); err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// bulk is what the command line asks for. The caller calls done at the end.
func (c *SubmitCmd) bulk(ctx context.Context, env *Env) (_ *bulk, done func(), err error) {
	names := env.Settings.Names
	b := &bulk{
		batch: c.Batch, named: c.Batch != "", subject: names.Subject,
		rules: remediation.Rules{Stream: names.Stream, OwnSubjects: broker.Names(names).OwnSubjects()},
	}
	if err := checkBatch(c.Batch, names.Stream); err != nil {
		return nil, nil, err
	}
	for flag, value := range c.texts() {
		if !utf8.ValidString(value) {
			return nil, nil, badInput("%s: is not UTF-8; encode it as UTF-8", flag)
		}
	}
	if err := c.signWith(b); err != nil {
		return nil, nil, err
	}
	if c.Machine != "" {
		return b, func() {}, c.single(b)
	}
	in, err := openInput(ctx, c.File, env.Stdin)
	if err != nil {
		return nil, nil, err
	}
	unsigned := b.rules
	unsigned.Signers = nil // a row is signed only once it is complete
	b.name, b.rows = in.name, in.rows(c.Comment, unsigned)
	if !b.named {
		b.batch = in.digest
	}
	return b, in.close, nil
}

// single is the one request that the flags describe.
func (c *SubmitCmd) single(b *bulk) error {
	if expires, err := time.Parse(time.RFC3339, c.ExpiresAt); err == nil && time.Now().After(expires) {
		return badInput("--expires-at: %s has passed; give a time to come", c.ExpiresAt)
	}
	b.single, b.known = c.ID, c.ID != ""
	if !b.known {
		b.single = randomID()
	}
	b.rows = slices.Values([]row{{line: 1, message: message{
		ID: b.single, MachineID: c.Machine, Comment: c.Comment, Ticket: c.Ticket, RequestedBy: c.RequestedBy,
		ExpiresAt: c.ExpiresAt, ReplyTo: c.ReplyTo,
	}}})
	return nil
}

// signWith makes the rules those of a worker that trusts this one signer.
func (c *SubmitCmd) signWith(b *bulk) (err error) {
	if c.SignWith == "" {
		return nil
	}
	if b.seed, err = config.ReadSmall(c.SignWith); err != nil {
		return badInput("--sign-with %s: %w", c.SignWith, err)
	}
	if b.signer, _, err = remediation.Sign(b.seed, b.subject, nil); err != nil {
		return badInput("--sign-with %s: %w", c.SignWith, err)
	}
	if b.rules.Signers, err = remediation.ParseSigners(b.signer); err != nil {
		return badInput("--sign-with %s: %w", c.SignWith, err)
	}
	b.expires = time.Now().Add(signFor).UTC().Format(time.RFC3339)
	return nil
}
