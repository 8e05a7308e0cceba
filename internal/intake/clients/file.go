package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

// usualRate is the rate of a client whose entry has none.
const usualRate = 120

// entry is a client in the file.
type entry struct {
	Name           string          `yaml:"name"`
	Lanes          []string        `yaml:"lanes"`
	Rate           *int            `yaml:"rate"`
	TokenSHA256    []string        `yaml:"token_sha256"`
	OIDC           *oidcEntry      `yaml:"oidc"`
	MTLS           *mtlsEntry      `yaml:"mtls"`
	SignerSeedFile string          `yaml:"signer_seed_file"`
	Signer         string          `yaml:"signer"`
	Callbacks      []callbackEntry `yaml:"callbacks"`
}

type oidcEntry struct {
	Issuer      string   `yaml:"issuer"`
	EntraTenant string   `yaml:"entra_tenant"`
	Audience    string   `yaml:"audience"`
	AppIDs      []string `yaml:"app_ids"`
	Roles       []string `yaml:"roles"`
}

type mtlsEntry struct {
	SAN string `yaml:"san"`
}

// parse reads a clients file. Its mistakes name the line, the client and the key, and repeat no value, because a secret
// may have been put in the wrong place.
func parse(text []byte) ([]*Client, error) {
	m := &mistakes{}
	nodes := m.entries(text)
	decoder := yaml.NewDecoder(strings.NewReader("")) // one for all: an entry may use an anchor of an earlier one
	var list []*Client
	owners := map[[sha256.Size]byte]string{}
	for i, node := range nodes {
		var e entry
		if !m.decode(decoder, node, &e) {
			continue
		}
		where := fmt.Sprintf("client %d", i+1)
		if message.CheckName(e.Name) == nil {
			where = "client " + e.Name
		}
		wrong := func(format string, args ...any) {
			what := fmt.Errorf(format, args...)
			m.add(lineOf(node, what.Error()), "%s: %w", where, what)
		}
		c := e.client(wrong)
		if slices.ContainsFunc(list, func(o *Client) bool { return o.Name == c.Name && c.Name != "" }) {
			wrong("is there twice; give each client one entry")
		}
		for _, digest := range c.tokens {
			if other, taken := owners[digest]; taken && other != c.Name {
				wrong("token_sha256: %s has that token too; give each client its own", other)
			}
			owners[digest] = c.Name
		}
		list = append(list, c)
	}
	if len(nodes) == 0 && len(m.list) == 0 {
		m.add(1, "it names no client; give a list, clients:")
	}
	if len(m.list) > 0 {
		return nil, m
	}
	return list, nil
}

func (e entry) client(wrong func(string, ...any)) *Client {
	c := &Client{Name: e.Name, Rate: usualRate, Lanes: []message.Lane{message.LaneNormal}}
	if err := message.CheckName(e.Name); err != nil {
		wrong("name: %w", err)
	}
	if e.Rate != nil {
		if c.Rate = *e.Rate; c.Rate < 1 || c.Rate > 1_000_000 {
			wrong("rate: give how many requests a minute it may make, 1 to 1000000")
		}
	}
	if e.Lanes != nil {
		c.Lanes = nil
	}
	for _, name := range e.Lanes {
		l, err := message.ParseLane(name)
		if err != nil {
			wrong("lanes: one of them is none; there are %s", message.LaneNames(message.Lanes()))
		}
		c.Lanes = append(c.Lanes, l)
	}
	e.signsIn(c, wrong)
	e.signs(c, wrong)
	e.callbacks(c, wrong)
	return c
}

func (e entry) signsIn(c *Client, wrong func(string, ...any)) {
	ways := 0
	if e.TokenSHA256 != nil {
		ways++
		for _, text := range e.TokenSHA256 {
			digest, err := hex.DecodeString(text)
			if err != nil || len(digest) != sha256.Size {
				wrong("token_sha256: one of them is no SHA-256; give 64 hexadecimal digits, as of `printf %%s TOKEN | sha256sum`")
				continue
			}
			c.tokens = append(c.tokens, [sha256.Size]byte(digest))
		}
	}
	if e.MTLS != nil {
		ways++
		if c.san = e.MTLS.SAN; c.san == "" {
			wrong("mtls: san: is missing; give a subject alternative name of its certificate")
		}
	}
	if e.OIDC != nil {
		ways++
		c.oidc = e.OIDC.rule(wrong)
	}
	if ways != 1 {
		wrong("there are %d ways to sign in; give one of token_sha256, oidc and mtls", ways)
	}
}

func (o *oidcEntry) rule(wrong func(string, ...any)) *oidcRule {
	r := &oidcRule{audience: o.Audience, apps: o.AppIDs, roles: o.Roles}
	switch {
	case (o.Issuer == "") == (o.EntraTenant == ""):
		wrong("oidc: give either issuer or entra_tenant")
	case o.EntraTenant != "":
		if strings.Trim(strings.ToLower(o.EntraTenant), "0123456789abcdef-") != "" {
			wrong("oidc: entra_tenant: give the tenant's id, 32 hexadecimal digits with hyphens")
		}
		v2 := "https://login.microsoftonline.com/" + o.EntraTenant + "/v2.0"
		r.issuers, r.discovery = []string{v2, "https://sts.windows.net/" + o.EntraTenant + "/"}, v2
	default:
		if u, err := url.Parse(o.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			wrong("oidc: issuer: give its address, https://..., exactly as its tokens have it")
		}
		r.issuers, r.discovery = []string{o.Issuer}, o.Issuer
	}
	if o.Audience == "" {
		wrong("oidc: audience: is missing; give what its tokens are made for, such as api://unrestrict-intake")
	}
	if len(o.AppIDs) == 0 || slices.Contains(o.AppIDs, "") {
		wrong("oidc: app_ids: is missing; give the ids of the apps that may ask as this client")
	}
	return r
}

func (e entry) signs(c *Client, wrong func(string, ...any)) {
	switch {
	case e.SignerSeedFile != "" && e.Signer != "":
		wrong("give one of signer_seed_file and signer")
	case e.SignerSeedFile != "":
		seed, err := message.ReadBounded(e.SignerSeedFile, 64<<10)
		if err == nil {
			c.Signer, _, err = message.Sign(seed, "", nil)
		}
		if err != nil {
			wrong("signer_seed_file: %w", err)
		}
		c.Seed = seed
	case e.Signer != "":
		if c.Signer = e.Signer; nkeys.Prefix(e.Signer) == nkeys.PrefixByteSeed || !nkeys.IsValidPublicKey(e.Signer) {
			wrong("signer: is no public nkey; give the one by which the client signs, and never its seed")
		}
	}
}
