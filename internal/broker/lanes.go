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

// madeBy marks a request stream that this program created: it may add the subjects of lanes to it. Every other stream is
// somebody's who knows why it is as it is.
const madeBy, thisProgram = "made-by", "unrestrict-worker"

// LaneSubject is the subject of a lane.
func (n Names) LaneSubject(l message.Lane) string { return l.Subject(n.Subject) }

// LaneConsumer is the durable consumer of a lane.
func (n Names) LaneConsumer(l message.Lane) string { return n.Consumer + l.Suffix("-") }

// Takes reports whether requests come on a subject.
func (n Names) Takes(subject string) bool { return slices.Contains(n.laneSubjects(), subject) }

// laneSubjects are those of all lanes.
func (n Names) laneSubjects() []string {
	return []string{n.Subject, n.LaneSubject(message.LaneUrgent), n.LaneSubject(message.LaneBulk)}
}

// carries reports whether a stream stores what is published on a subject.
func carries(cfg jetstream.StreamConfig, subject string) bool {
	return slices.ContainsFunc(cfg.Subjects, func(filter string) bool { return server.SubjectMatchesFilter(subject, filter) })
}

// lanes are those that the request stream carries; all of them where it is yet to be created.
func (t topology) lanes(there present) (all []message.Lane) {
	s := there.streams[t.requests.cfg.Name]
	for _, l := range message.Lanes() {
		if s == nil || carries(s.CachedInfo().Config, t.consumers[l].FilterSubject) {
			all = append(all, l)
		}
	}
	return all
}

// withoutLanes says of a request stream that lacks subjects of lanes which command adds them; "": it has all.
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
	return fmt.Sprintf("stream %s does not carry %s: whoever publishes there gets an error; `nats stream edit %s --subjects %s` adds what is lacking",
		cfg.Name, strings.Join(lacks, " and "), cfg.Name, strings.Join(slices.Concat(cfg.Subjects, lacks), ","))
}

// extend adds the subjects of lanes to the request stream, if this program made it. One that lost the subject of normal too
// is not as this program knows it, and is left alone.
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

// marked is a request stream's configuration with the mark of this program.
func marked(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Metadata = maps.Clone(cfg.Metadata)
	if cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}
	cfg.Metadata[madeBy] = thisProgram
	return cfg
}

// laneConsumers are the consumers of all lanes. Their filters are disjoint, as a work queue wants it.
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
			// A hand-back with a delay counts as a delivery: a limit would lose
			// requests. Giving up goes by time and is the worker's decision.
			MaxDeliver: -1,
			// Requests that wait for a delay count here too: a limit would let
			// them hold up all others.
			MaxAckPending: -1,
		}
	}
	return all
}
