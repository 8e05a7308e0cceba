package main

import (
	"time"

	"example.com/unrestrict-worker/internal/remediation"
)

// Settings is the configuration after flags, environment, file and defaults
// were merged and checked. A zero value means what its comment says.
type Settings struct {
	NATS     NATSSettings
	Embedded EmbeddedSettings
	Names    NameSettings

	Provision bool
	Replicas  int    // 1, 3 or 5
	DataDir   string // of the embedded broker's store

	Concurrency     int // 1 to 1024
	AckWait         time.Duration
	Backoff         BackoffSettings
	GiveUpAfter     time.Duration
	ReconcileDelay  time.Duration
	DryRun          bool
	ShutdownTimeout time.Duration

	Rates Rates
	Track TrackSettings

	Accept   AcceptSettings
	Defender DefenderSettings
	Admin    AdminSettings
	Log      LogSettings
}

// NATSSettings says which broker and how to sign in. Empty means not given; at
// most one way of signing in is.
type NATSSettings struct {
	URLs          []string // empty: the embedded broker; may carry user:password
	Creds, Nkey   string   // paths
	User          string
	Password      Secret
	Token         Secret
	CA, Cert, Key string // paths; Cert and Key come together
}

// EmbeddedSettings says where the embedded broker is.
type EmbeddedSettings struct {
	Addr  string // host:port; loopback unless Token is set
	Token Secret
}

// NameSettings are the names in NATS, each valid and all of a kind distinct.
type NameSettings struct {
	Subject, Stream, Consumer           string
	ResultsSubject, ResultsStream       string
	DeadletterSubject, DeadletterStream string
}

// BackoffSettings is the exponential backoff between attempts at one request.
type BackoffSettings struct {
	Initial, Max  time.Duration // 0 < Initial <= Max
	Multiplier    float64       // at least 1
	Randomization float64       // 0 to 1
}

// Rates are calls per sliding window; 0 means no limit.
type Rates struct{ PerMinute, PerHour int }

// TrackSettings says how accepted actions are followed.
type TrackSettings struct {
	Enabled      bool
	PollInterval time.Duration
	Timeout      time.Duration
}

// AcceptSettings says which requests are carried out.
type AcceptSettings struct {
	Signers       *remediation.Signers // nil: signatures are not asked for
	Policy        *remediation.Policy  // nil: a signer may ask anything; else there are Signers
	MaxRequestAge time.Duration        // 0: no limit
	GuardAfter    time.Duration        // 0: every request is held against newer actions
}

// DefenderSettings says where the API is and how to sign in.
type DefenderSettings struct {
	Cloud                    string // commercial, gcc, gcc-high, dod
	APIURL                   string // scheme://host[:port]; empty: by Cloud
	Scope                    string // empty: by Cloud
	Auth                     string // as DEFENDER_AUTH
	TokenFile                string // set where Auth is token-file
	DisableInstanceDiscovery bool
	Timeout                  time.Duration
}

// AdminSettings says where the admin server listens.
type AdminSettings struct {
	Addr  string // host:port; an empty host is every address
	Token Secret
}

// LogSettings says what is logged and how.
type LogSettings struct {
	Level  string // debug, info, warn, error
	Format string // json, console; empty: console on a terminal, else json
}

// Secret is a value that no log, error or page may show: every way of printing
// it gives a placeholder.
type Secret struct{ value string }

// Reveal returns the value, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

// IsSet tells whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

// String is for fmt and zap.
func (s Secret) String() string {
	if s.IsSet() {
		return "(secret)"
	}
	return ""
}

// GoString is for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is for encoding/json.
func (s Secret) MarshalText() ([]byte, error) { //nolint:unparam // the interface's signature
	return []byte(s.String()), nil
}
