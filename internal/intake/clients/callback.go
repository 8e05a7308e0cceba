package clients

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

// Callback is where a client's results are posted.
type Callback struct {
	Name string
	URL  string

	outcomes  []string // nil: all
	finalOnly bool
	secret    []byte // HMAC key; nil: seed is used
	seed      []byte // an nkey
}

// Wants reports whether the callback gets a result.
func (c *Callback) Wants(r message.Result) bool {
	return (r.Final || !c.finalOnly) && (c.outcomes == nil || slices.Contains(c.outcomes, r.Outcome))
}

// Sign is the header webhook-signature of Standard Webhooks.
func (c *Callback) Sign(id string, at time.Time, body []byte) (string, error) {
	text := fmt.Appendf(nil, "%s.%d.%s", id, at.Unix(), body)
	if c.secret != nil {
		mac := hmac.New(sha256.New, c.secret)
		mac.Write(text)
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
	}
	pair, err := nkeys.FromSeed(c.seed)
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	raw, err := pair.Sign(text)
	return "v1a," + base64.StdEncoding.EncodeToString(raw), err
}

type callbackEntry struct {
	Name       string   `yaml:"name"`
	URL        string   `yaml:"url"`
	SecretFile string   `yaml:"secret_file"`
	KeyFile    string   `yaml:"key_file"`
	Outcomes   []string `yaml:"outcomes"`
	FinalOnly  bool     `yaml:"final_only"`
}

func (e entry) callbacks(c *Client, wrong func(string, ...any)) {
	for i, entry := range e.Callbacks {
		where := fmt.Sprintf("callbacks: %d: ", i+1)
		if message.CheckName(entry.Name) == nil {
			where = "callbacks: " + entry.Name + ": "
		}
		made := entry.callback(func(format string, args ...any) { wrong(where+format, args...) })
		if slices.ContainsFunc(c.Callbacks, func(o *Callback) bool { return o.Name == made.Name && made.Name != "" }) {
			wrong(where + "is there twice; give each its own name")
		}
		c.Callbacks = append(c.Callbacks, made)
	}
}

func (e callbackEntry) callback(wrong func(string, ...any)) *Callback {
	c := &Callback{Name: e.Name, URL: e.URL, outcomes: e.Outcomes, finalOnly: e.FinalOnly}
	if err := message.CheckName(e.Name); err != nil {
		wrong("name: %w", err)
	}
	u, err := url.Parse(e.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		wrong("url: give an address with https, such as https://siem.contoso.com/hook; http is for loopback alone")
	}
	for _, outcome := range e.Outcomes {
		if !message.IsOutcome(outcome) {
			wrong("outcomes: one of them is none; there are %s", strings.Join(message.Outcomes(), ", "))
		}
	}
	switch {
	case (e.SecretFile == "") == (e.KeyFile == ""):
		wrong("give either secret_file (whsec_...) or key_file (an nkey seed)")
	case e.SecretFile != "":
		text, err := message.ReadBounded(e.SecretFile, 4<<10)
		encoded, is := strings.CutPrefix(strings.TrimSpace(string(text)), "whsec_")
		if err == nil {
			c.secret, err = base64.StdEncoding.DecodeString(encoded)
		}
		if err != nil || !is || len(c.secret) == 0 {
			wrong("secret_file: can't be read, or holds no secret; write whsec_ and base64 of 24 to 64 random bytes into it")
		}
	default:
		text, err := message.ReadBounded(e.KeyFile, 64<<10)
		if c.seed = bytes.TrimSpace(text); err == nil {
			_, err = nkeys.FromSeed(c.seed)
		}
		if err != nil {
			wrong("key_file: can't be read, or holds no nkey seed; make one with nk -gen user")
		}
	}
	return c
}

func loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }
