package broker

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// Names of the worker's own buckets. They are not configurable, unlike the streams
// of Names, because replicas find each other by them.
const (
	LedgerBucket = "UNRESTRICT_LEDGER" // what was done for each request
	StateBucket  = "UNRESTRICT_STATE"  // pause, closure of the budget, lease, presence records, tally of results, how far orders are recorded
)

// Subjects that the worker uses in addition to those of Names.
const (
	ownSubjects = "unrestrict.>" // the budget's windows, and any other subject of the worker itself
)

// The audit trail's names are not configurable, so that an auditor can find it without a worker's configuration.
const (
	AuditStream  = "REMEDIATION_AUDIT"
	AuditSubject = "remediation.audit"
)

const (
	defaultAckWait = 20 * time.Second

	// requestDuplicates lets the same file be submitted again the next morning
	// without queueing a row twice. The ledger, not this window, ensures that
	// an id is carried out only once.
	requestDuplicates = 24 * time.Hour
	// resultDuplicates is the window that the documentation of results promises to readers.
	resultDuplicates = 24 * time.Hour
	resultMaxAge     = 30 * 24 * time.Hour
	// controlMaxAge is how long an order about a batch stays in force: longer than any batch is kept.
	controlMaxAge = 400 * 24 * time.Hour
	// auditDuplicates is the server's own default; no record has a message id.
	auditDuplicates = 2 * time.Minute

	// embeddedMaxStore bounds the embedded broker's disk use, and
	// embeddedRequestBytes the requests in it. With DiscardNew, the broker
	// refuses a flood of requests, so it can't use up the room that ledger,
	// results and dead letters need to finish what was accepted.
	embeddedMaxStore     = 16 << 30
	embeddedMaxMemory    = 64 << 20
	embeddedRequestBytes = 4 << 30
)

// Names are the configurable names; the zero value of each is its default.
type Names struct {
	Subject, Stream, Consumer           string
	ResultsSubject, ResultsStream       string
	DeadletterSubject, DeadletterStream string
	ControlSubject, ControlStream       string
}

func (n Names) withDefaults() Names {
	for field, name := range map[*string]string{
		&n.Subject: "remediation.unrestrict", &n.Stream: "REMEDIATION", &n.Consumer: "unrestrict-worker",
		&n.ResultsSubject: "remediation.results", &n.ResultsStream: "REMEDIATION_RESULTS",
		&n.DeadletterSubject: "remediation.deadletter", &n.DeadletterStream: "REMEDIATION_DEADLETTER",
		&n.ControlSubject: "remediation.control", &n.ControlStream: "REMEDIATION_CONTROL",
	} {
		if *field == "" {
			*field = name
		}
	}
	return n
}

// streamSpec is one stream of the topology: how it is provisioned, and the
// subject that it must carry, whoever has created it.
type streamSpec struct {
	cfg     jetstream.StreamConfig
	subject string
	own     bool // UNRESTRICT_...: the worker may change its settings
	kept    bool // stored messages must not be deleted, except by age, as the operator sets it
}

// topology is all streams, buckets and consumers that must exist before the first request is taken.
type topology struct {
	requests, results, deadletters, control, audit, ledger, state streamSpec
	consumers                                                     map[message.Lane]jetstream.ConsumerConfig
}

func (t topology) streams() []streamSpec {
	return []streamSpec{t.requests, t.results, t.deadletters, t.control, t.audit, t.ledger, t.state}
}

func newTopology(cfg Config) topology {
	n := cfg.Names
	t := topology{
		requests:    shared(n.Stream, n.Subject, "requests to release machines from code-execution restriction"),
		results:     shared(n.ResultsStream, n.ResultsSubject, "results of those requests"),
		deadletters: shared(n.DeadletterStream, n.DeadletterSubject, "requests that were rejected or abandoned"),
		control:     shared(n.ControlStream, n.ControlSubject, "orders about requests and batches"),
		audit:       shared(AuditStream, AuditSubject, "every release decision, hash-chained"),
		ledger:      bucket(LedgerBucket, "what was done about each request"),
		state:       bucket(StateBucket, "pause, closure, lease and readiness of the replicas"),
		consumers:   laneConsumers(cfg),
	}
	t.requests.cfg.Subjects = n.laneSubjects()
	t.requests.cfg.Retention = jetstream.WorkQueuePolicy
	t.requests.cfg.Discard = jetstream.DiscardNew
	t.requests.cfg.Duplicates = requestDuplicates
	if cfg.URL == "" {
		t.requests.cfg.MaxBytes = embeddedRequestBytes
	}
	t.results.cfg.MaxAge = resultMaxAge
	t.results.cfg.Duplicates = resultDuplicates
	t.deadletters.cfg.Duplicates = resultDuplicates
	t.control.kept = true
	t.control.cfg.DenyDelete, t.control.cfg.DenyPurge = true, true
	t.control.cfg.MaxAge = controlMaxAge
	t.control.cfg.Duplicates = auditDuplicates
	t.audit.kept = true
	t.audit.cfg.DenyDelete, t.audit.cfg.DenyPurge = true, true
	t.audit.cfg.Duplicates = auditDuplicates
	for _, s := range []*streamSpec{&t.requests, &t.results, &t.deadletters, &t.control, &t.audit, &t.ledger, &t.state} {
		s.cfg.Replicas = cfg.Replicas
	}
	return t
}

// shared is a stream that other programs publish to or read from: file storage,
// limits retention, unlimited. Unlimited is -1, as the server reports it, so that
// a provisioned stream compares as equal.
func shared(name, subject, description string) streamSpec {
	return streamSpec{subject: subject, cfg: jetstream.StreamConfig{
		Name: name, Description: description, Subjects: []string{subject},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
		MaxConsumers: -1, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
		AllowDirect: true,
	}}
}

// bucket is the stream of a key-value bucket with history 1 and an optional
// lifetime for each key. [doc] nats-architecture-and-design ADR-8, ADR-43.
func bucket(name, description string) streamSpec {
	subject := "$KV." + name + ".>"
	return streamSpec{subject: subject, own: true, cfg: jetstream.StreamConfig{
		Name: "KV_" + name, Description: description, Subjects: []string{subject},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
		MaxConsumers: -1, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: 1, MaxMsgSize: -1,
		AllowDirect: true, AllowRollup: true, DenyDelete: true,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: stream.MarkerTTL,
		Duplicates: 2 * time.Minute,
	}}
}
