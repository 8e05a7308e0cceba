package main

// settingFlags declares every setting once. Its tags are what the flags, the
// environment variables, the keys of a --config file, the help pages,
// completion and docs/configuration.md are made of:
//
//	env      the variable; the flag is the same in kebab-case without WORKER_,
//	         the key in a file the flag with _ for -
//	default  used where neither flag, environment nor file has it
//	unset    what an empty value means, for settings without a default
//	oneof    the values there are
//	type     "toggle": the flag alone means true; "secret": has no flag, since
//	         a command line can be read by others
//
// All of them are strings here: kong would stop at the first mistake, and a
// command such as version must run with any. Settings are made by settle.
type settingFlags struct {
	Broker       brokerFlags       `embed:"" prefix:"nats-" group:"broker"`
	Embedded     embeddedFlags     `embed:"" prefix:"embedded-" group:"embedded"`
	Store        storeFlags        `embed:"" group:"embedded"`
	Names        nameFlags         `embed:"" group:"names"`
	Provisioning provisioningFlags `embed:"" group:"provisioning"`
	Work         workFlags         `embed:"" group:"work"`
	Budget       budgetFlags       `embed:"" prefix:"rate-per-" group:"budget"`
	Following    followingFlags    `embed:"" group:"following"`
	Acceptance   acceptanceFlags   `embed:"" group:"acceptance"`
	Defender     defenderFlags     `embed:"" prefix:"defender-" group:"defender"`
	Admin        adminFlags        `embed:"" prefix:"admin-" group:"admin"`
	Log          logFlags          `embed:"" prefix:"log-" group:"log"`
}

type brokerFlags struct {
	URL          string `env:"NATS_URL" unset:"the embedded broker" help:"NATS servers, comma-separated."`
	Creds        string `env:"NATS_CREDS" help:"Credentials file (JWT and nkey seed) to sign in with."`
	Nkey         string `env:"NATS_NKEY" help:"File with the nkey seed to sign in with."`
	User         string `env:"NATS_USER" help:"User name to sign in with."`
	Password     string `env:"NATS_PASSWORD" type:"secret" help:"Password of NATS_USER."`
	PasswordFile string `env:"NATS_PASSWORD_FILE" help:"File with the password."`
	Token        string `env:"NATS_TOKEN" type:"secret" help:"Token to sign in with."`
	TokenFile    string `env:"NATS_TOKEN_FILE" help:"File with the token."`
	CA           string `name:"ca" env:"NATS_CA" unset:"the system's certificates" help:"File with the certificates (PEM) that the server's is checked against."`
	Cert         string `env:"NATS_CERT" help:"File with the client certificate (PEM); needs NATS_KEY."`
	Key          string `env:"NATS_KEY" help:"File with the key (PEM) of NATS_CERT."`
}

type embeddedFlags struct {
	Addr      string `env:"WORKER_EMBEDDED_ADDR" default:"127.0.0.1:4222" help:"Where the embedded broker listens, used without NATS_URL. An address other than loopback needs WORKER_EMBEDDED_TOKEN."`
	Token     string `env:"WORKER_EMBEDDED_TOKEN" type:"secret" unset:"made at the first start and kept in WORKER_DATA_DIR/token" help:"Token that all clients of the embedded broker must sign in with; other programs give it as NATS_TOKEN."`
	TokenFile string `env:"WORKER_EMBEDDED_TOKEN_FILE" help:"File with that token."`
}

type storeFlags struct {
	DataDir string `env:"WORKER_DATA_DIR" default:"./data" help:"Folder of the embedded broker's store, and of its token, which commands on this machine read there."`
}

type nameFlags struct {
	Subject           string `env:"WORKER_SUBJECT" default:"remediation.unrestrict" help:"Subject of the requests."`
	Stream            string `env:"WORKER_STREAM" default:"REMEDIATION" help:"Stream of the requests."`
	Consumer          string `env:"WORKER_CONSUMER" default:"unrestrict-worker" help:"Durable consumer that the replicas share."`
	ResultsSubject    string `env:"WORKER_RESULTS_SUBJECT" default:"remediation.results" help:"Subject of the results."`
	ResultsStream     string `env:"WORKER_RESULTS_STREAM" default:"REMEDIATION_RESULTS" help:"Stream of the results."`
	DeadletterSubject string `env:"WORKER_DEADLETTER_SUBJECT" default:"remediation.deadletter" help:"Subject of the dead letters."`
	DeadletterStream  string `env:"WORKER_DEADLETTER_STREAM" default:"REMEDIATION_DEADLETTER" help:"Stream of the dead letters."`
}

type provisioningFlags struct {
	Provision string `env:"WORKER_PROVISION" type:"toggle" default:"true" help:"Create streams, consumers and buckets that are missing; one that is there is never altered. With false they must be there."`
	Replicas  string `env:"WORKER_REPLICAS" default:"1" help:"JetStream replicas of what is created: 1, 3 or 5."`
}

type workFlags struct {
	Concurrency          string `env:"WORKER_CONCURRENCY" default:"16" help:"API calls in flight in this process, 1 to 1024."`
	AckWait              string `env:"WORKER_ACK_WAIT" default:"20s" help:"How soon a dead replica's requests go to another; at least 1s. Requests being worked on are kept alive."`
	BackoffInitial       string `env:"WORKER_BACKOFF_INITIAL" default:"500ms" help:"First wait between two attempts at one request."`
	BackoffMax           string `env:"WORKER_BACKOFF_MAX" default:"1m" help:"Longest wait between two attempts at one request."`
	BackoffMultiplier    string `env:"WORKER_BACKOFF_MULTIPLIER" default:"2" help:"How much longer each wait is than the one before; at least 1."`
	BackoffRandomization string `env:"WORKER_BACKOFF_RANDOMIZATION" default:"0.5" help:"Share of a wait that is left to chance, 0 to 1."`
	GiveUpAfter          string `env:"WORKER_GIVE_UP_AFTER" default:"24h" help:"A request that could not be carried out for so long, while others could, is abandoned."`
	ReconcileDelay       string `env:"WORKER_RECONCILE_DELAY" default:"5s" help:"After a call whose fate is unknown: the wait before the API is asked whether it took place; asked again after 3 and 6 times as long."`
	DryRun               string `env:"WORKER_DRY_RUN" type:"toggle" default:"false" help:"Do everything but the call; the outcome is dryRun. Beside live replicas one in dry run takes nothing."`
	ShutdownTimeout      string `env:"WORKER_SHUTDOWN_TIMEOUT" default:"25s" help:"How long calls in flight may take to finish after SIGINT or SIGTERM."`
}

type budgetFlags struct {
	Minute string `env:"WORKER_RATE_PER_MINUTE" default:"100" help:"Calls in any minute, look-ups included, of all replicas together; 0 for no limit."`
	Hour   string `env:"WORKER_RATE_PER_HOUR" default:"1500" help:"Calls in any hour, look-ups included, of all replicas together; 0 for no limit."`
}

type followingFlags struct {
	Track        string `env:"WORKER_TRACK" type:"toggle" default:"true" help:"Follow each accepted action to its final status."`
	PollInterval string `env:"WORKER_POLL_INTERVAL" default:"15s" help:"How often the actions being followed are looked up, with one list call for all; less often while nothing changes."`
	TrackTimeout string `env:"WORKER_TRACK_TIMEOUT" default:"72h" help:"An action still not final after so long gets the outcome timedOut."`
}

type acceptanceFlags struct {
	TrustedSigners     string `env:"WORKER_TRUSTED_SIGNERS" unset:"signatures are not asked for" help:"Public nkeys, comma-separated, each bare or as NAME=KEY, a name of 1 to 64 letters, digits and . _ @ -; a request not signed by one of them is rejected."`
	TrustedSignersFile string `env:"WORKER_TRUSTED_SIGNERS_FILE" help:"File of trusted signers, one NKEY NAME a line; read anew when it changes."`
	PolicyFile         string `env:"WORKER_POLICY_FILE" help:"YAML file that says what each signer may ask; needs trusted signers, and is read anew when it changes."`
	MaxRequestAge      string `env:"WORKER_MAX_REQUEST_AGE" default:"0" help:"A request older than this when it is first taken is rejected as expired; 0 for no limit."`
	GuardAfter         string `env:"WORKER_GUARD_AFTER" default:"1h" help:"A request older than this when its call is due, and every replay, is rejected if the machine was restricted or isolated after it was published; 0 for every request."`
}

type defenderFlags struct {
	Cloud                    string `env:"DEFENDER_CLOUD" oneof:"commercial,gcc,gcc-high,dod" default:"commercial" help:"Sets API host, token scope and authority together."`
	APIURL                   string `name:"api-url" env:"DEFENDER_API_URL" unset:"by DEFENDER_CLOUD, https://api.security.microsoft.com" help:"The API: scheme, host and port without a path. http is accepted for loopback hosts alone."`
	Scope                    string `env:"DEFENDER_SCOPE" unset:"by DEFENDER_CLOUD, https://api.securitycenter.microsoft.com/.default" help:"Scope that tokens are asked for."`
	Auth                     string `env:"DEFENDER_AUTH" oneof:"default,client-secret,client-certificate,workload-identity,managed-identity,azure-cli,device-code,token-file" default:"default" help:"How to sign in; default is the Azure SDK's chain."`
	TokenFile                string `env:"DEFENDER_TOKEN_FILE" help:"With DEFENDER_AUTH=token-file: file with a bearer token, read anew when it changes."`
	DisableInstanceDiscovery string `env:"DEFENDER_DISABLE_INSTANCE_DISCOVERY" type:"toggle" default:"false" help:"For private clouds and simulators, with AZURE_AUTHORITY_HOST."`
	Timeout                  string `env:"DEFENDER_TIMEOUT" default:"30s" help:"Longest time for one HTTP exchange."`
}

type adminFlags struct {
	Addr      string `env:"WORKER_ADMIN_ADDR" default:"127.0.0.1:8080" help:"Where the admin server listens."`
	Token     string `env:"WORKER_ADMIN_TOKEN" type:"secret" help:"Bearer token for the admin server; once set, and always off loopback, all but /livez, /readyz and /metrics needs it."`
	TokenFile string `env:"WORKER_ADMIN_TOKEN_FILE" help:"File with that token."`
}

type logFlags struct {
	Level  string `env:"LOG_LEVEL" oneof:"debug,info,warn,error" default:"info" help:"The least level that is logged."`
	Format string `env:"LOG_FORMAT" oneof:"json,console" unset:"json; console on a terminal" help:"Form of the log, which goes to standard error."`
}
