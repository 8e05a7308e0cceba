package broker

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/message"
)

// missing lists what does not exist, each with how to create it.
func (t topology) missing(existing inventory) (missing []string) {
	for _, spec := range t.streams() {
		if existing.streams[spec.cfg.Name] == nil {
			missing = append(missing, missingStream(spec.cfg))
		}
	}
	for _, l := range t.lanes(existing) {
		if cfg := t.consumers[l]; existing.consumers[l] == nil {
			missing = append(missing, fmt.Sprintf("consumer %s: nats consumer add %s --config FILE, where FILE has: %s", cfg.Durable, t.requests.cfg.Name, settings(cfg)))
		}
	}
	return missing
}

func missingStream(cfg jetstream.StreamConfig) string {
	return fmt.Sprintf("stream %s: nats stream add --config FILE, where FILE has: %s", cfg.Name, settings(cfg))
}

// unfit lists the settings that would break a promise.
func (t topology) unfit(existing inventory) (reasons []string) {
	for _, spec := range t.streams() {
		s := existing.streams[spec.cfg.Name]
		if s == nil {
			continue
		}
		cfg := s.CachedInfo().Config
		for _, reason := range unfitStream(cfg, spec) {
			reasons = append(reasons, fmt.Sprintf("stream %s %s", cfg.Name, reason))
		}
	}
	for _, l := range message.Lanes() {
		c := existing.consumers[l]
		if c == nil {
			continue
		}
		for _, reason := range unfitConsumer(c.Config, existing.streams[t.requests.cfg.Name].CachedInfo().Config, t.consumers[l].FilterSubject) {
			reasons = append(reasons, fmt.Sprintf("consumer %s of stream %s %s", c.Name, t.requests.cfg.Name, reason))
		}
	}
	return reasons
}

func unfitStream(cfg jetstream.StreamConfig, spec streamSpec) (reasons []string) {
	if !carries(cfg, spec.subject) {
		reasons = append(reasons, fmt.Sprintf("does not carry the subject %s: its subjects are %q", spec.subject, cfg.Subjects))
	}
	if tr := cfg.SubjectTransform; tr != nil && (tr.Source == "" || server.SubjectsCollide(spec.subject, tr.Source)) {
		reasons = append(reasons, fmt.Sprintf("stores %s under another subject (subject transform)", spec.subject))
	}
	if cfg.NoAck {
		reasons = append(reasons, "acknowledges nothing (no_ack): a client could not know what it has stored")
	}
	if cfg.Sealed {
		reasons = append(reasons, "is sealed and takes no messages")
	}
	if cfg.PersistMode == jetstream.AsyncPersistMode {
		reasons = append(reasons, "acknowledges a message before it is written (persist_mode async): a crash of the server would take back what it has acknowledged; it can't be turned off, so the stream must be recreated")
	}
	if cfg.AllowMsgSchedules {
		reasons = append(reasons, "takes scheduled messages (allow_msg_schedules): who may publish on one of its subjects could have a message appear on any other, whatever NATS lets him publish; it can't be turned off, so the stream must be recreated")
	}
	if spec.kept {
		reasons = append(reasons, unfitRecord(cfg)...)
	}
	if !spec.own {
		return reasons
	}
	if cfg.Storage != jetstream.FileStorage {
		reasons = append(reasons, "is kept in memory: a restart would forget which calls were made")
	}
	if why := refusesSecond(cfg); why != "" {
		reasons = append(reasons, why)
	}
	if !cfg.AllowMsgTTL {
		reasons = append(reasons, "has no lifetime per message (allow_msg_ttl): it needs NATS server 2.11 or later")
	}
	if cfg.MaxAge > 0 || cfg.Discard == jetstream.DiscardOld && (cfg.MaxMsgs > 0 || cfg.MaxBytes > 0) {
		reasons = append(reasons, "drops entries by age or number: the calls that they stand for would be made again")
	}
	return reasons
}

// refusesSecond is why a key of a bucket can't be written a second time; "": it can.
func refusesSecond(cfg jetstream.StreamConfig) string {
	if !cfg.DiscardNewPerSubject || cfg.MaxMsgsPerSubject <= 0 {
		return ""
	}
	return "refuses each further value of a key (discard_new_per_subject): nothing in it could ever change"
}

// unfitRecord lists the settings that would delete records, or allow somebody to delete them.
func unfitRecord(cfg jetstream.StreamConfig) (reasons []string) {
	if cfg.Storage != jetstream.FileStorage {
		reasons = append(reasons, "is kept in memory: a restart would forget what was decided")
	}
	if cfg.Retention != jetstream.LimitsPolicy {
		reasons = append(reasons, fmt.Sprintf("has retention %s instead of limits: records would be deleted once they are read", cfg.Retention))
	}
	if !cfg.DenyDelete {
		reasons = append(reasons, "lets records be deleted (deny_delete is false): it must be true, which can be set with records there, and not taken back")
	}
	if !cfg.DenyPurge {
		reasons = append(reasons, "lets records be purged (deny_purge is false): it must be true, which can be set with records there, and not taken back")
	}
	// The limit for each subject has its own discard policy.
	if cfg.Discard == jetstream.DiscardOld && (cfg.MaxMsgs > 0 || cfg.MaxBytes > 0) || cfg.MaxMsgsPerSubject > 0 && !cfg.DiscardNewPerSubject {
		reasons = append(reasons, "drops the oldest records by number or size (max_msgs, max_bytes, max_msgs_per_subject): with discard new it takes no more instead, and the worker waits for room")
	}
	return reasons
}

func unfitConsumer(c jetstream.ConsumerConfig, stream jetstream.StreamConfig, subject string) (reasons []string) {
	if c.DeliverSubject != "" {
		return []string{"is a push consumer: requests would come faster than they can be called"}
	}
	if c.AckPolicy != jetstream.AckExplicitPolicy {
		reasons = append(reasons, fmt.Sprintf("has ack policy %s instead of explicit: requests would count as done that are not", c.AckPolicy))
	}
	if c.MaxDeliver > 0 {
		reasons = append(reasons, fmt.Sprintf("gives up after %d deliveries (max_deliver): requests that wait for quota would be lost; it must be -1", c.MaxDeliver))
	}
	if c.DeliverPolicy != jetstream.DeliverAllPolicy {
		reasons = append(reasons, fmt.Sprintf("has deliver policy %s instead of all: requests that were published before it was made would never be delivered; it can't be changed, so delete the consumer, and it is recreated", c.DeliverPolicy))
	}
	if c.HeadersOnly {
		reasons = append(reasons, "delivers headers only")
	}
	if c.PriorityPolicy != jetstream.PriorityPolicyNone {
		reasons = append(reasons, "has a priority policy, whose groups the worker does not know")
	}
	// On a work queue, a recreated consumer finds only requests that are not acknowledged.
	if stream.Retention != jetstream.WorkQueuePolicy && (c.InactiveThreshold > 0 || c.MemoryStorage) {
		reasons = append(reasons, "can be forgotten by the broker (inactive_threshold, mem_storage): requests long done would come again, or waiting ones never")
	}
	filters := c.FilterSubjects
	if c.FilterSubject != "" {
		filters = append(filters, c.FilterSubject)
	}
	if len(filters) == 0 {
		filters = stream.Subjects
	}
	if !slices.Equal(filters, []string{subject}) {
		reasons = append(reasons, fmt.Sprintf("delivers %q instead of %s alone", filters, subject))
	}
	return reasons
}

// repaired returns the configuration of one of the worker's own streams with the
// settings that it relies on. It keeps more replicas than configured.
func repaired(got, want jetstream.StreamConfig) (cfg jetstream.StreamConfig, changed bool) {
	cfg = got
	cfg.Replicas = max(got.Replicas, want.Replicas)
	cfg.AllowMsgTTL = true
	if cfg.SubjectDeleteMarkerTTL == 0 {
		cfg.SubjectDeleteMarkerTTL = want.SubjectDeleteMarkerTTL
	}
	cfg.AllowRollup = true // a delete marker is a roll-up
	cfg.MaxAge, cfg.Discard, cfg.DiscardNewPerSubject = want.MaxAge, want.Discard, false
	return cfg, !reflect.DeepEqual(cfg, got)
}

// differences lists the settings that differ from what Provision would create.
func (t topology) differences(existing inventory) (all []string) {
	for _, spec := range t.streams() {
		got := existing.streams[spec.cfg.Name].CachedInfo().Config
		if lacks := t.withoutLanes(got); spec.cfg.Name == t.requests.cfg.Name && lacks != "" {
			all, got.Subjects = append(all, lacks), spec.cfg.Subjects
		}
		if got.MaxBytes == embeddedRequestBytes { // the stream was created by a worker with an embedded broker
			got.MaxBytes = spec.cfg.MaxBytes
		}
		all = append(all, differing("stream "+spec.cfg.Name, got, spec.cfg, "subjects", "retention", "storage", "num_replicas", "duplicate_window", "discard",
			"max_age", "max_bytes", "max_msgs", "max_msgs_per_subject", "max_msg_size", "max_consumers", "deny_delete", "deny_purge", "allow_rollup_hdrs", "allow_direct")...)
	}
	for _, name := range existing.foreign {
		all = append(all, fmt.Sprintf("stream %s: consumer %s is none of the worker's: what it acknowledges is gone from a work queue, and is never carried out", t.requests.cfg.Name, name))
	}
	for _, l := range t.lanes(existing) {
		all = append(all, differing("consumer "+t.consumers[l].Durable, existing.consumers[l].Config, t.consumers[l], "ack_wait", "backoff", "max_ack_pending",
			"replay_policy", "inactive_threshold", "mem_storage", "num_replicas", "max_batch", "max_expires", "max_bytes")...)
	}
	return all
}

// differing compares the settings with these JSON names, in the order of the struct's fields.
func differing(of string, got, want any, names ...string) (all []string) {
	is, wants := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range is.NumField() {
		name, _, _ := strings.Cut(is.Type().Field(i).Tag.Get("json"), ",")
		if !slices.Contains(names, name) || is.Field(i).Comparable() && is.Field(i).Equal(wants.Field(i)) {
			continue
		}
		if a, b := fmt.Sprint(is.Field(i)), fmt.Sprint(wants.Field(i)); a != b {
			all = append(all, fmt.Sprintf("%s: %s is %s, would be %s", of, name, a, b))
		}
	}
	return all
}

// settings is a configuration as JSON, as the nats command and other tools read it.
func settings(cfg any) string {
	text, err := json.Marshal(cfg)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
