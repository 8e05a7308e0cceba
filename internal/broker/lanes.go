package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
)

// madeBy marks a request stream that this program created, and to which it may add the subjects of lanes. Any other stream
// belongs to somebody who had reasons for its settings.
const madeBy, thisProgram = "made-by", "unrestrict-worker"

// LaneSubject is a lane's subject.
func (n Names) LaneSubject(l message.Lane) string { return l.Subject(n.Subject) }

// LaneConsumer is the durable consumer of a lane.
func (n Names) LaneConsumer(l message.Lane) string { return n.Consumer + l.Suffix("-") }

// Takes reports whether a subject is for requests.
func (n Names) Takes(subject string) bool { return slices.Contains(n.laneSubjects(), subject) }

// laneSubjects are the subjects of all lanes.
func (n Names) laneSubjects() []string {
	return []string{n.Subject, n.LaneSubject(message.LaneUrgent), n.LaneSubject(message.LaneBulk)}
}

// carries reports whether a stream stores messages on a subject.
func carries(cfg jetstream.StreamConfig, subject string) bool {
	return slices.ContainsFunc(cfg.Subjects, func(filter string) bool { return server.SubjectMatchesFilter(subject, filter) })
}

// lanes are the lanes that the request stream carries; all of them if it does not exist yet.
func (t topology) lanes(existing inventory) (all []message.Lane) {
	s := existing.streams[t.requests.cfg.Name]
	for _, l := range message.Lanes() {
		if s == nil || carries(s.CachedInfo().Config, t.consumers[l].FilterSubject) {
			all = append(all, l)
		}
	}
	return all
}

// withoutLanes says which lanes' subjects a request stream lacks, and which command adds them; "": it has all.
func (t topology) withoutLanes(cfg jetstream.StreamConfig) string {
	var lacks []string
	for _, l := range message.Lanes() {
		if subject := t.consumers[l].FilterSubject; !carries(cfg, subject) {
			lacks = append(lacks, subject)
		}
	}
	if len(lacks) == 0 {
		return ""
	}
	return fmt.Sprintf("stream %s does not carry %s: publishing there fails; `nats stream edit %s --subjects %s` adds what is missing",
		cfg.Name, strings.Join(lacks, " and "), cfg.Name, strings.Join(slices.Concat(cfg.Subjects, lacks), ","))
}

// extend adds missing lanes' subjects to the request stream, if this program created it. A stream that lacks the subject of
// normal too was changed by somebody else, and is left as it is.
func (b *Broker) extend(ctx context.Context, s jetstream.Stream) (jetstream.Stream, error) {
	cfg := s.CachedInfo().Config
	if cfg.Metadata[madeBy] != thisProgram || !carries(cfg, b.cfg.Names.Subject) || b.topology.withoutLanes(cfg) == "" {
		return s, nil
	}
	cfg.Subjects = slices.Clone(cfg.Subjects)
	for _, subject := range b.cfg.Names.laneSubjects() {
		if !carries(cfg, subject) {
			cfg.Subjects = append(cfg.Subjects, subject)
		}
	}
	b.log.Info("adding lanes to the stream that this program made", zap.String("stream", cfg.Name), zap.Strings("subjects", cfg.Subjects))
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.UpdateStream(ctx, cfg) })
	if err != nil {
		return nil, fmt.Errorf("update stream %s: %w", cfg.Name, err)
	}
	return s, nil
}

// marked returns a request stream's configuration with the mark of this program.
func marked(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Metadata = maps.Clone(cfg.Metadata)
	if cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}
	cfg.Metadata[madeBy] = thisProgram
	return cfg
}

// laneConsumers are the consumers of all lanes. Their filters are disjoint, as a work queue requires.
func laneConsumers(cfg Config) map[message.Lane]jetstream.ConsumerConfig {
	all := map[message.Lane]jetstream.ConsumerConfig{}
	for _, l := range message.Lanes() {
		name := cfg.Names.LaneConsumer(l)
		all[l] = jetstream.ConsumerConfig{
			Name: name, Durable: name, Description: "the workers' shared consumer, lane " + string(l),
			FilterSubject: cfg.Names.LaneSubject(l),
			DeliverPolicy: jetstream.DeliverAllPolicy,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       cfg.AckWait,
			// A nak with a delay counts as a delivery: a limit would lose
			// requests. The worker gives up, by time.
			MaxDeliver: -1,
			// Nakked requests that wait for their delay count here too: with
			// a limit they would hold up all others.
			MaxAckPending: -1,
		}
	}
	return all
}
