// Package config declares every setting of the program once, and makes typed, checked settings from flags, environment
// variables and a YAML file.
package config

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// Settings is the configuration after flags, environment, file and defaults
// were merged and checked. The flags, the environment variables, the keys of a
// --config file, the help pages, completion and docs/configuration.md are made
// from its tags:
//
//	env      the variable; the flag is the same in kebab-case without WORKER_,
//	         the key in a file the flag with _ for -
//	group    of Groups; a struct's group is that of its fields
//	help     what it means
//	default  used where neither flag, environment nor file has it
//	unset    what an empty value means, for settings without a default
//	file     help of a second setting, the variable with _FILE: the value is in that file
//	oneof    the allowed values
//	context  its key in a context of the nats command
//	is       what a text must be: see parseText
//	min max  bounds of a number or a duration, both allowed
//
// A Secret has no flag, because others can read a command line. An invalid
// setting has the zero value.
type Settings struct {
	NATS     NATS     `group:"broker"`
	Embedded Embedded `group:"embedded"`
	DataDir  string   `group:"embedded" env:"WORKER_DATA_DIR" default:"./data" is:"not-blank" help:"Folder of the embedded broker's store, and of its token, which commands on this machine read there."`
	Names    Names    `group:"names"`

	Provision bool `group:"provisioning" env:"WORKER_PROVISION" default:"true" help:"Create streams, consumers and buckets that are missing; one that is there is never altered. With false they must be there."`
	Replicas  int  `group:"provisioning" env:"WORKER_REPLICAS" default:"1" min:"1" max:"5" help:"JetStream replicas of what is created: 1, 3 or 5."`

	Concurrency     int           `group:"work" env:"WORKER_CONCURRENCY" default:"16" min:"1" max:"1024" help:"API calls in flight in this process, 1 to 1024."`
	AckWait         time.Duration `group:"work" env:"WORKER_ACK_WAIT" default:"20s" min:"1s" help:"How soon a dead replica's requests go to another; at least 1s. Requests being worked on are kept alive."`
	Backoff         Backoff       `group:"work"`
	GiveUpAfter     time.Duration `group:"work" env:"WORKER_GIVE_UP_AFTER" default:"24h" min:"1ms" help:"A request that could not be carried out for so long, while others could, is abandoned."`
	ReconcileDelay  time.Duration `group:"work" env:"WORKER_RECONCILE_DELAY" default:"5s" min:"1ms" help:"After a call whose fate is unknown: the least wait before the API is asked whether it took place; asked again after 3 and 6 times as long. One list serves all requests that wait, up to half as long later, up to six times while requests wait for quota."`
	DryRun          bool          `group:"work" env:"WORKER_DRY_RUN" default:"false" help:"Do everything but the call; the outcome is dryRun. Beside live replicas one in dry run takes nothing."`
	ShutdownTimeout time.Duration `group:"work" env:"WORKER_SHUTDOWN_TIMEOUT" default:"25s" min:"0s" help:"How long calls in flight may take to finish after SIGINT or SIGTERM."`

	Rates    Rates    `group:"budget"`
	Track    Track    `group:"following"`
	Accept   Accept   `group:"acceptance"`
	Defender Defender `group:"defender"`
	Admin    Admin    `group:"admin"`
	Intake   Intake   `group:"intake"`
	Log      Log      `group:"log"`
	Tenant   string   `group:"log" env:"WORKER_TENANT" is:"tenant" help:"Name of the tenant, where the deployments of several are watched together: a label of all metrics, a field of each log line, and part of the results' ce-source."`
}

// NATS configures which broker to use and how to sign in. Empty means not given; at most one way of signing in is given.
type NATS struct {
	URLs     []string `env:"NATS_URL" context:"url" unset:"the embedded broker" help:"NATS servers, comma-separated."` // may carry user:password
	Creds    string   `env:"NATS_CREDS" context:"creds" is:"file" help:"Credentials file (JWT and nkey seed) to sign in with."`
	Nkey     string   `env:"NATS_NKEY" context:"nkey" is:"file" help:"File with the nkey seed to sign in with."`
	User     string   `env:"NATS_USER" context:"user" help:"User name to sign in with."`
	Password Secret   `env:"NATS_PASSWORD" context:"password" help:"Password of NATS_USER." file:"File with the password."`
	Token    Secret   `env:"NATS_TOKEN" context:"token" help:"Token to sign in with." file:"File with the token."`
	CA       string   `env:"NATS_CA" context:"ca" is:"file" unset:"the system's certificates" help:"File with the certificates (PEM) that the server's is checked against."`
	Cert     string   `env:"NATS_CERT" context:"cert" is:"file" help:"File with the client certificate (PEM); needs NATS_KEY."`
	Key      string   `env:"NATS_KEY" context:"key" is:"file" help:"File with the key (PEM) of NATS_CERT."`

	Domain      string `env:"NATS_JS_DOMAIN" context:"jetstream_domain" is:"domain" unset:"the server's own" help:"JetStream domain that has, or is to have, the streams."`
	TLSFirst    bool   `env:"NATS_TLS_FIRST" context:"tls_first" default:"false" help:"Begin with the TLS handshake, for a server with handshake_first."`
	Context     string `env:"NATS_CONTEXT" help:"Context of the nats command, its name or its file. What it says counts where flags, variables and the --config file say nothing."`
	InboxPrefix string `env:"NATS_INBOX_PREFIX" context:"inbox_prefix" is:"prefix" unset:"_INBOX" help:"Begins the subjects of answers, for a user that may subscribe to these alone."`
}

// Embedded configures the embedded broker.
type Embedded struct {
	Addr  string `env:"WORKER_EMBEDDED_ADDR" default:"127.0.0.1:4222" is:"address" help:"Where the embedded broker listens, used without NATS_URL. An address other than loopback needs WORKER_EMBEDDED_TOKEN."`
	Token Secret `env:"WORKER_EMBEDDED_TOKEN" unset:"made at the first start and kept in WORKER_DATA_DIR/token" help:"Token that all clients of the embedded broker must sign in with; other programs give it as NATS_TOKEN." file:"File with that token."`
}

// Names are the names in NATS, each valid, and distinct from all others of its kind.
type Names struct {
	Subject           string `env:"WORKER_SUBJECT" default:"remediation.unrestrict" is:"subject" help:"Subject of the requests; the lanes urgent and bulk have it with .urgent and .bulk."`
	Stream            string `env:"WORKER_STREAM" default:"REMEDIATION" is:"stream" help:"Stream of the requests."`
	Consumer          string `env:"WORKER_CONSUMER" default:"unrestrict-worker" is:"name" help:"Durable consumer that the replicas share; those of the lanes urgent and bulk have it with -urgent and -bulk."`
	ResultsSubject    string `env:"WORKER_RESULTS_SUBJECT" default:"remediation.results" is:"subject" help:"Subject of the results."`
	ResultsStream     string `env:"WORKER_RESULTS_STREAM" default:"REMEDIATION_RESULTS" is:"stream" help:"Stream of the results."`
	DeadletterSubject string `env:"WORKER_DEADLETTER_SUBJECT" default:"remediation.deadletter" is:"subject" help:"Subject of the dead letters."`
	DeadletterStream  string `env:"WORKER_DEADLETTER_STREAM" default:"REMEDIATION_DEADLETTER" is:"stream" help:"Stream of the dead letters."`
	ControlSubject    string `env:"WORKER_CONTROL_SUBJECT" default:"remediation.control" is:"subject" help:"Subject of the orders: cancel, pause and resume of a batch, approve and deny."`
	ControlStream     string `env:"WORKER_CONTROL_STREAM" default:"REMEDIATION_CONTROL" is:"stream" help:"Stream of the orders."`
}

// Backoff is the exponential backoff between attempts at one request.
type Backoff struct {
	Initial       time.Duration `env:"WORKER_BACKOFF_INITIAL" default:"500ms" min:"1ms" help:"First wait between two attempts at one request."`
	Max           time.Duration `env:"WORKER_BACKOFF_MAX" default:"1m" min:"1ms" help:"Longest wait between two attempts at one request."`
	Multiplier    float64       `env:"WORKER_BACKOFF_MULTIPLIER" default:"2" min:"1" max:"100" help:"How much longer each wait is than the one before; at least 1."`
	Randomization float64       `env:"WORKER_BACKOFF_RANDOMIZATION" default:"0.5" min:"0" max:"1" help:"Share of a wait that is left to chance, 0 to 1."`
}

// Rates are calls per sliding window; 0 means no limit.
type Rates struct {
	PerMinute int `env:"WORKER_RATE_PER_MINUTE" default:"100" min:"0" max:"1000000" help:"Calls in any minute, look-ups included, of all replicas together; 0 for no limit."`
	PerHour   int `env:"WORKER_RATE_PER_HOUR" default:"1500" min:"0" max:"1000000" help:"Calls in any hour, look-ups included, of all replicas together; 0 for no limit."`

	UrgentReserve int `env:"WORKER_URGENT_RESERVE" default:"5" min:"0" max:"100" help:"Percent of each window that requests of the lane normal leave to urgent ones; those of bulk leave twice as much; 0 for none."`
}

// Track configures the following of accepted actions.
type Track struct {
	Enabled      bool          `env:"WORKER_TRACK" default:"true" help:"Follow each accepted action to its final status."`
	PollInterval time.Duration `env:"WORKER_POLL_INTERVAL" default:"15s" min:"100ms" help:"How often the actions being followed are looked up, with one list call for all; less often while nothing changes."`
	Timeout      time.Duration `env:"WORKER_TRACK_TIMEOUT" default:"72h" min:"1ms" help:"An action still not final after so long gets the outcome timedOut."`
}

// Accept configures which requests are carried out.
type Accept struct {
	Signers       *message.Signers `env:"WORKER_TRUSTED_SIGNERS" unset:"signatures are not asked for" help:"Public nkeys, comma-separated, each bare or as NAME=KEY, a name of 1 to 64 letters, digits and . _ @ -; a request not signed by one of them is rejected." file:"File of trusted signers, one NKEY NAME a line; read anew when it changes."`
	Policy        *policy.Policy   `env:"WORKER_POLICY_FILE" help:"YAML file that says what each signer may ask; needs trusted signers, and is read anew when it changes."` // nil: a signer may ask anything
	MaxRequestAge time.Duration    `env:"WORKER_MAX_REQUEST_AGE" default:"0" min:"0s" help:"A request older than this when it is first taken is rejected as expired; 0 for no limit."`
	GuardAfter    time.Duration    `env:"WORKER_GUARD_AFTER" default:"1h" min:"0s" help:"A request older than this when its call is due, and every replay, is rejected if the machine was restricted or isolated after it was published; 0 for every request."`
}

// Defender configures the address of the API and the sign-in to it.
type Defender struct {
	Cloud                    string        `env:"DEFENDER_CLOUD" oneof:"commercial,gcc,gcc-high,dod" default:"commercial" help:"Sets API host, token scope and authority together."`
	APIURL                   string        `env:"DEFENDER_API_URL" is:"api-url" unset:"by DEFENDER_CLOUD, https://api.security.microsoft.com" help:"The API: scheme, host and port without a path. http is accepted for loopback hosts alone."`
	Scope                    string        `env:"DEFENDER_SCOPE" unset:"by DEFENDER_CLOUD, https://api.securitycenter.microsoft.com/.default" help:"Scope that tokens are asked for."`
	Auth                     string        `env:"DEFENDER_AUTH" oneof:"default,client-secret,client-certificate,workload-identity,managed-identity,azure-cli,device-code,token-file" default:"default" help:"How to sign in; default is the Azure SDK's chain."`
	TokenFile                string        `env:"DEFENDER_TOKEN_FILE" help:"With DEFENDER_AUTH=token-file: file with a bearer token, read anew when it changes."`
	DisableInstanceDiscovery bool          `env:"DEFENDER_DISABLE_INSTANCE_DISCOVERY" default:"false" help:"For private clouds and simulators, with AZURE_AUTHORITY_HOST."`
	Timeout                  time.Duration `env:"DEFENDER_TIMEOUT" default:"30s" min:"100ms" help:"Longest time for one HTTP exchange."`
}

// Admin configures the admin server.
type Admin struct {
	Addr  string `env:"WORKER_ADMIN_ADDR" default:"127.0.0.1:8080" is:"address" help:"Where the admin server listens."` // an empty host is every address
	Token Secret `env:"WORKER_ADMIN_TOKEN" help:"Bearer token for the admin server; once set, and always off loopback, all but /livez, /readyz and /metrics needs it." file:"File with that token."`
}

// Intake configures `worker intake`.
type Intake struct {
	Addr        string `env:"WORKER_INTAKE_ADDR" default:"127.0.0.1:8090" is:"address" help:"Where the HTTP intake listens. An address other than loopback needs WORKER_INTAKE_TLS_CERT, WORKER_INTAKE_TLS_KEY and WORKER_INTAKE_CLIENTS_FILE."`
	URL         string `env:"WORKER_INTAKE_URL" is:"base-url" unset:"what the Host header says" help:"What Location and Operation-Location begin with, where clients come through a proxy."`
	ClientsFile string `env:"WORKER_INTAKE_CLIENTS_FILE" unset:"one client, local, with a token in WORKER_DATA_DIR/intake-token" help:"YAML file that says who may ask over HTTP; read anew when it changes."`
	ClientCA    string `env:"WORKER_INTAKE_CLIENT_CA" is:"file" help:"File with the certificates (PEM) that clients' certificates are checked against; needs WORKER_INTAKE_TLS_CERT."`
	TLSCert     string `env:"WORKER_INTAKE_TLS_CERT" is:"file" help:"File with the intake's certificate (PEM); needs WORKER_INTAKE_TLS_KEY. Read anew when it changes."`
	TLSKey      string `env:"WORKER_INTAKE_TLS_KEY" is:"file" help:"File with the key (PEM) of WORKER_INTAKE_TLS_CERT."`
}

// Log configures what is logged, and how.
type Log struct {
	Level  string `env:"LOG_LEVEL" oneof:"debug,info,warn,error" default:"info" help:"The least level that is logged."`
	Format string `env:"LOG_FORMAT" oneof:"json,console" unset:"json; console on a terminal" help:"Form of the log, which goes to standard error."`
}

// Group is a group of settings. Commands declare the settings that they use by group.
type Group struct {
	Key, Title, Description string
	Shared                  bool // by the commands that only talk to the broker
}

// Groups are in the order of the help.
func Groups() []Group {
	return []Group{
		{Key: "broker", Title: "Broker", Description: "As the nats command reads them.", Shared: true},
		{Key: "embedded", Title: "Embedded broker", Description: "Commands other than run, demo and simulate find a running worker's broker here when NATS_URL is empty.", Shared: true},
		{Key: "names", Title: "Subjects, streams and consumer", Shared: true},
		{Key: "provisioning", Title: "Provisioning and storage", Shared: true},
		{Key: "work", Title: "Carrying out requests"},
		{Key: "budget", Title: "Call budget", Shared: true},
		{Key: "following", Title: "Following actions"},
		{Key: "acceptance", Title: "Which requests are carried out"},
		{Key: "defender", Title: "Defender API", Description: "The Azure SDK's own variables work too: AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (or AZURE_CLIENT_SECRET_FILE), AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE, AZURE_AUTHORITY_HOST. DEFENDER_AUTH decides which of them are needed."},
		{Key: "admin", Title: "Admin server"},
		{Key: "intake", Title: "HTTP intake", Description: "Of `worker intake` alone."},
		{Key: "log", Title: "Log and tenant", Shared: true},
	}
}
