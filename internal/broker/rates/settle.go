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

// StreamConfig is the stream that keeps a window's grants: full at the limit, refusing what is
// new, and letting go of a grant when it has aged out, by the clock of the broker alone.
func StreamConfig(w budget.Window, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: StreamName(w.Name), Subjects: []string{Subject(w.Name)},
		Description: "the calls of the last " + w.Name + ": to publish is to take one",
		Storage:     jetstream.FileStorage, Replicas: replicas,
		MaxMsgsPerSubject: int64(w.Limit), Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		MaxAge: w.Lasts(), Duplicates: 100 * time.Millisecond,
		AllowDirect: true, // whoever forecasts reads all grants at once
	}
}

// settle returns the window's stream with its info, after making its limit the one that holds now.
//
// Raising is one update, and left to those who have heard all others. Lowering would delete the oldest grants, which a later raise would miss:
// so while the stream's limit is above the one that holds nobody takes (all replicas see this
// alike), until the grants fit and the update deletes none.
func (s *Store) settle(ctx context.Context, window string, limit int, known bool) (jetstream.Stream, error) {
	s.settling.Lock()
	defer s.settling.Unlock()
	stream, err := s.stream(ctx, window)
	if errors.Is(err, jetstream.ErrStreamNotFound) && s.replicas > 0 {
		// Somebody removed it. What it had granted is not known any more, which must be said
		// before another replica can find the new one empty.
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

// identify marks a window as incomplete if its stream is not the one that it was: somebody has made another in its place, or
// it was lost while no worker ran. The shared state says which one it was, and is told of this one once it is marked.
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
	if first := was.Value == nil && s.created[w.Name].IsZero(); !first && string(was.Value) != name {
		err = s.mark(ctx, w)
	}
	if err == nil && string(was.Value) != name {
		err = s.state.Put(ctx, key, []byte(name), 0)
	}
	if err == nil {
		s.created[w.Name] = created
	}
	return err
}

// ensure creates a window's stream or corrects the settings of the one that is there.
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

// conform corrects the settings of a window's stream, whoever has changed them: a limit of others would be taken for the API's.
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

// conforming is have with what the budget rests on. Its limit is settle's, its storage can't be changed, and more replicas
// than configured are left.
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

// stream asks for a stream anew, with its info as of now.
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
