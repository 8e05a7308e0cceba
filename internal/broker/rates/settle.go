package rates

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// StreamConfig is the stream that holds a window's grants. It is full at the limit, refuses new grants then, and drops a grant
// when it has aged out. Only the broker's clock counts.
func StreamConfig(w budget.Window, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: StreamName(w.Name), Subjects: []string{Subject(w.Name)},
		Description: "the calls of the last " + w.Name + ": to publish is to take one",
		Storage:     jetstream.FileStorage, Replicas: replicas,
		MaxMsgsPerSubject: int64(w.Limit), Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		MaxAge: w.Span(), Duplicates: 100 * time.Millisecond,
		AllowDirect: true, // a forecast reads all grants at once
	}
}

// settle adjusts the limit of the window's stream to the one that holds now, and returns the stream with its info.
//
// Raising is one update, which only a replica that knows the limits of all others makes. Lowering would delete the oldest grants,
// which would be missing after a later raise. So while the stream's limit is above the one that holds, no replica takes a call
// (all see the same stream), until the grants fit and the update deletes none.
func (s *Store) settle(ctx context.Context, window string, limit int, known bool) (jetstream.Stream, error) {
	s.settling.Lock()
	defer s.settling.Unlock()
	stream, err := s.stream(ctx, window)
	if errors.Is(err, jetstream.ErrStreamNotFound) && s.replicas > 0 {
		// Somebody removed it, so its grants are not known any more. Mark the window before
		// another replica can find the new stream empty.
		w := s.windows[window]
		w.Limit = limit
		if err := s.mark(ctx, w); err != nil {
			return nil, err
		}
		if err := s.ensure(ctx, w); err != nil {
			return nil, err
		}
		stream, err = s.stream(ctx, window)
	}
	if err == nil {
		err = s.identify(ctx, s.windows[window], stream.CachedInfo().Created)
	}
	if err == nil {
		err = s.remember(ctx, s.windows[window], stream.CachedInfo())
	}
	if err == nil {
		stream, err = s.conform(ctx, s.windows[window], stream)
	}
	if err != nil {
		return nil, err
	}
	config := stream.CachedInfo().Config
	is, want, taken := config.MaxMsgsPerSubject, int64(limit), int64(stream.CachedInfo().State.Msgs)
	if is == want || is > want && taken > want || is < want && !known {
		return stream, nil
	}
	config.MaxMsgsPerSubject = want
	if err := s.update(ctx, config); err != nil {
		return nil, err
	}
	return s.stream(ctx, window)
}

// identify marks a window as incomplete if its stream is not the same as before: somebody has recreated it, or it was lost while
// no worker ran. The shared state has the previous stream's creation time, and gets the new one after the mark is written.
func (s *Store) identify(ctx context.Context, w budget.Window, created time.Time) error {
	if s.created[w.Name].Equal(created) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	key, name := streamPrefix+w.Name, created.UTC().Format(time.RFC3339Nano)
	was, err := s.state.Load(ctx, key)
	if err != nil {
		return err
	}
	if string(was.Value) == name { // another replica was faster; the watch may not have delivered its mark yet
		err = s.readMark(ctx, w)
	} else {
		if first := was.Value == nil && s.created[w.Name].IsZero(); !first {
			err = s.mark(ctx, w)
		}
		if err == nil {
			err = s.state.Put(ctx, key, []byte(name), 0)
		}
	}
	if err == nil {
		s.created[w.Name] = created
	}
	return err
}

// ensure creates a window's stream, or corrects the settings of the one that exists.
func (s *Store) ensure(ctx context.Context, w budget.Window) error {
	config := StreamConfig(w, s.replicas)
	config.Storage = s.storage
	stream, err := s.stream(ctx, w.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if _, err = s.js.CreateStream(ctx, config); err == nil {
			return nil
		} else if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("create stream %s: %w", config.Name, err)
		}
		stream, err = s.stream(ctx, w.Name) // another replica was faster, with another limit
	}
	if err != nil {
		return err
	}
	_, err = s.conform(ctx, w, stream)
	return err
}

// conform corrects the settings of a window's stream if somebody has changed them: another limit would count as the API's.
func (s *Store) conform(ctx context.Context, w budget.Window, stream jetstream.Stream) (jetstream.Stream, error) {
	have := stream.CachedInfo().Config
	want := conforming(have, StreamConfig(w, s.replicas))
	if reflect.DeepEqual(have, want) {
		return stream, nil
	}
	if err := s.update(ctx, want); err != nil {
		return nil, err
	}
	return s.stream(ctx, w.Name)
}

// conforming returns have with the settings that the budget relies on. It does not change the limit, which settle sets, nor the
// storage, which can't be changed, and it keeps more replicas than configured.
func conforming(have, config jetstream.StreamConfig) jetstream.StreamConfig {
	want := have
	want.Subjects, want.MaxAge, want.Duplicates, want.AllowDirect = config.Subjects, config.MaxAge, config.Duplicates, true
	want.Replicas = max(have.Replicas, config.Replicas)
	want.Discard, want.DiscardNewPerSubject = config.Discard, config.DiscardNewPerSubject
	want.MaxMsgs, want.MaxBytes, want.MaxMsgSize = min(have.MaxMsgs, -1), min(have.MaxBytes, -1), min(have.MaxMsgSize, -1)
	want.NoAck, want.SubjectTransform = false, nil
	if have.MaxMsgsPerSubject <= 0 && config.MaxMsgsPerSubject > 0 {
		want.MaxMsgsPerSubject = config.MaxMsgsPerSubject
	}
	return want
}

// stream looks a window's stream up, with its present info.
func (s *Store) stream(ctx context.Context, window string) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := s.js.Stream(ctx, StreamName(window))
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", StreamName(window), err)
	}
	return stream, nil
}

func (s *Store) update(ctx context.Context, config jetstream.StreamConfig) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := s.js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("update stream %s: %w", config.Name, err)
	}
	return nil
}
