// Package why is `worker why`: everything that is known of one request.
package why

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/deadletter"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// History is all that is known of one request; until it is split, of all requests of one id.
type History struct {
	id          string
	entries     []ledger.Entry   // the ledger's, before it is split
	Entry       *ledger.Entry    // the ledger's; nil: it has none
	Queued      []service.Queued // messages of it that are not acknowledged
	place       *service.Place   // in the queue; nil: it does not wait in it
	MessageGone bool             // no message of the id is in the stream
	results     []publishedResult
	letters     []deadletter.Letter
	acts        []ledger.AuditRecord // of operators, on its dead letters
	decided     []ledger.AuditRecord // of its runs that have ended, with what was exchanged with the API
	comment     string               // as the audit trail has it; the ledger forgets it at the end
	notes       []string             // how the id that was asked for led to this request
	waits       []string             // what it waits for; nil: for nothing
	holder      string               // whose call its machine waits for; "": nobody's

	signedBy, client string // whose it is; both "": nobody's
}

// publishedResult is a published result.
type publishedResult struct {
	at     time.Time
	result message.Result
}

// Run prints everything that happened to one request, and what it waits for.
func (c *Cmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	all, err := find(ctx, conn, c.ID)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		list, err := service.RequestsOf(ctx, conn, c.ID)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			return c.list(env, list)
		}
	}
	if all, err = chooseOwner(all, c.ID, c.SignedBy); err != nil {
		return err
	}
	for i, s := range all {
		if err := s.look(ctx, conn, env.Settings); err != nil {
			return err
		}
		switch {
		case c.JSON:
			err = session.WriteJSONLine(env.Stdout, s.view(conn.Names()))
		default:
			if i > 0 {
				fmt.Fprintln(env.Stdout)
			}
			err = write(s.Story(), session.NewScreen(env))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Stories returns what is known of the requests of an id, one for each owner.
func Stories(ctx context.Context, conn *broker.Broker, set config.Settings, id string) (stories []admin.Story, err error) {
	all, err := find(ctx, conn, id)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if err := s.look(ctx, conn, set); err != nil {
			return nil, err
		}
		stories = append(stories, s.Story())
	}
	return stories, nil
}

// find gathers what is known. If a message seems to be gone it gathers once more: the message may have been published after the
// stream was read and before the ledger was.
func find(ctx context.Context, conn *broker.Broker, id string) ([]*History, error) {
	all, err := gather(ctx, conn, id)
	if err == nil && slices.ContainsFunc(all, func(s *History) bool { return s.stage() == messageGone }) {
		return gather(ctx, conn, id)
	}
	return all, err
}

// gather reads every store. If id is the STREAM:SEQ of a message that has an id of its own, it goes on with that id's request.
func gather(ctx context.Context, conn *broker.Broker, id string) ([]*History, error) {
	s := &History{id: id}
	digits, place := strings.CutPrefix(id, conn.Names().Stream+":")
	seq, err := strconv.ParseUint(digits, 10, 64)
	place = place && err == nil
	s.Queued, err = service.ReadQueue(ctx, conn, s.id, func(q service.Queued) bool { return q.Req.ID == s.id || place && q.Sequence == seq })
	if err != nil {
		return nil, err
	}
	if place && len(s.Queued) > 0 && !s.Queued[0].Req.Derived {
		s.follow(s.Queued[0].Req.ID)
		place = false
	}
	if err := s.readLedger(ctx, conn, place); err != nil {
		return nil, err
	}
	if len(s.entries) > 0 && s.entries[0].ID != s.id {
		s.follow(s.entries[0].ID)
	}
	if err := s.readResults(ctx, conn); err != nil {
		return nil, err
	}
	s.letters, err = deadletter.ReadLetters(ctx, conn, func(l deadletter.Letter) bool { return l.Dead.RequestID == s.id })
	if err != nil && !broker.IsMissing(err) {
		return nil, err
	}
	s.MessageGone = len(s.Queued) == 0
	all := s.byOwner()
	for _, of := range all {
		if err := of.readTrail(ctx, conn); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// follow goes on with the request that a message turned out to contain.
func (s *History) follow(id string) {
	s.notes = append(s.notes, fmt.Sprintf("%s is a message of the request %s.", session.Plain(s.id), session.Plain(id)))
	s.id = id
}

// readLedger finds the entries of the id, of every owner. The key of a request that is known by its message's STREAM:SEQ contains
// the time of that message. If the message is gone that time is not known, and the ledger is searched.
func (s *History) readLedger(ctx context.Context, conn *broker.Broker, place bool) error {
	store := conn.NewLedger()
	request, published := message.Request{ID: s.id, Derived: place}, time.Time{}
	switch {
	case !place:
	case len(s.Queued) > 0:
		published = s.Queued[0].Time
	default:
		err := store.Search(ctx, func(e ledger.Entry) {
			if (e.ID == s.id || e.Source == s.id) && (len(s.entries) == 0 || e.ReceivedAt.After(s.entries[0].ReceivedAt)) {
				s.entries = []ledger.Entry{e}
			}
		})
		if broker.IsMissing(err) {
			return nil
		}
		return err
	}
	records, err := ledger.LoadOwners(ctx, store, ledger.IDKey(conn.Names().Stream, request, published))
	if broker.IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		e, err := ledger.DecodeEntry(records[key])
		if err != nil {
			return err
		}
		if e.State != "" {
			s.entries = append(s.entries, e)
		}
	}
	return nil
}

func (s *History) readResults(ctx context.Context, conn *broker.Broker) error {
	o := broker.FollowOptions{ToPresent: true}
	err := conn.Follow(ctx, conn.Names().ResultsStream, o, func(m broker.Message) error {
		var r message.Result
		if json.Unmarshal(m.Data, &r) == nil && (r.RequestID == s.id || r.ClaimedID == s.id) {
			s.results = append(s.results, publishedResult{m.Time, r})
		}
		return nil
	})
	if broker.IsMissing(err) {
		return nil
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// last returns the latest result that is published.
func (s *History) last() (t publishedResult, found bool) {
	for _, t := range slices.Backward(s.results) {
		if t.result.RequestID == s.id {
			return t, true
		}
	}
	return t, false
}

// ended returns the last run's final result, if it is published.
func (s *History) ended() (publishedResult, bool) {
	t, found := s.last()
	return t, found && t.result.Final && (s.Entry == nil || s.Entry.State == ledger.StateFinal && s.Entry.Run <= t.result.Run)
}

// unfinished reports whether the latest known result is of an accepted call, and does not end the run.
func (s *History) unfinished() bool {
	t, found := s.last()
	return found && !t.result.Final && t.result.Outcome != message.AwaitingApproval
}

// Cmd is `worker why`.
type Cmd struct {
	ID       string `arg:"" help:"Id of the request, or of a message: STREAM:SEQ. A machine's id or a ticket lists their requests."`
	SignedBy string `placeholder:"NAME" help:"The request of this signer or client, where several have that id; without it each is shown."`
	JSON     bool   `name:"json" help:"One JSON object a line, one for each request of that id."`
}
