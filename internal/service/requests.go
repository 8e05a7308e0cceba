package service

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// KnownRequest is one of the requests that a search finds.
type KnownRequest struct {
	RequestID   string           `json:"requestId"`
	ClaimedID   string           `json:"claimedId,omitempty"`
	Run         int              `json:"run,omitempty"`
	State       string           `json:"state"` // queued, the ledger's, or final
	Outcome     string           `json:"outcome,omitempty"`
	Error       *message.Failure `json:"error,omitempty"`
	MachineID   string           `json:"machineId,omitempty"`
	RequestedBy string           `json:"requestedBy,omitempty"`
	Ticket      string           `json:"ticket,omitempty"`
	SignedBy    string           `json:"signedBy,omitempty"`
	Time        time.Time        `json:"time"` // the last known of: published, received, called, decided

	entry    *ledger.Entry // nil: no worker has taken it
	lane     message.Lane
	sequence uint64 // sequence of its message, while it waits; otherwise 0
}

// finder collects the requests whose id, claimed id, machine or ticket is the one asked for.
type finder struct {
	name  string
	found map[string]KnownRequest // by id and signer

	queued []Queued
}

func (f *finder) means(r KnownRequest) bool {
	return r.RequestID == f.name || r.ClaimedID == f.name || r.Ticket == f.name || strings.EqualFold(r.MachineID, f.name)
}

func (f *finder) add(r KnownRequest) {
	if f.means(r) {
		f.found[r.RequestID+"\x00"+r.SignedBy] = r
	}
}

// RequestsOf finds requests, the oldest first. Results name those that the ledger has forgotten, the ledger has the state
// of the others, and a request that no worker has received yet is only in the queue. The queue is read first: what a worker
// takes out of it meanwhile is found in the ledger or in the results.
func RequestsOf(ctx context.Context, conn *broker.Broker, name string) ([]KnownRequest, error) {
	f := &finder{name: name, found: map[string]KnownRequest{}}
	for _, read := range []func(context.Context, *broker.Broker) error{f.queue, f.results, f.ledger} {
		if err := read(ctx, conn); err != nil && !broker.IsMissing(err) {
			return nil, err
		}
	}
	f.addQueued()
	return slices.SortedFunc(maps.Values(f.found), func(a, b KnownRequest) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.RequestID, b.RequestID))
	}), context.Cause(ctx)
}

func (f *finder) results(ctx context.Context, conn *broker.Broker) error {
	return conn.Follow(ctx, conn.Names().ResultsStream, broker.FollowOptions{ToPresent: true}, func(m broker.Message) error {
		var r message.Result
		if json.Unmarshal(m.Data, &r) == nil {
			f.add(KnownRequest{
				RequestID: r.RequestID, ClaimedID: r.ClaimedID, Run: r.Run, State: string(ledger.StateFinal), Outcome: r.Outcome, Error: WhyEnded(r),
				MachineID: r.MachineID, RequestedBy: r.RequestedBy, Ticket: r.Ticket, SignedBy: r.SignedBy, Time: m.Time,
			})
		}
		return nil
	})
}

func (f *finder) ledger(ctx context.Context, conn *broker.Broker) error {
	return conn.NewLedger().Search(ctx, func(e ledger.Entry) {
		if _, hasResult := f.found[e.ID+"\x00"+e.SignedBy]; hasResult && e.State == ledger.StateFinal && e.Published {
			return // its result has more
		}
		sequence := uint64(0)
		if e.State == ledger.StateWaiting {
			sequence, _ = strconv.ParseUint(strings.TrimPrefix(e.Source, conn.Names().Stream+":"), 10, 64)
		}
		f.add(KnownRequest{
			entry: &e, lane: e.Lane, sequence: sequence,
			RequestID: e.ID, Run: e.Run, State: string(e.State), Outcome: e.Outcome, Error: cmp.Or(e.Error, e.LastError),
			MachineID: e.MachineID, RequestedBy: e.RequestedBy, Ticket: e.Ticket, SignedBy: e.SignedBy,
			Time: cmp.Or(e.DecidedAt, e.AcceptedAt, e.LastCall, e.ReceivedAt),
		})
	})
}

func (f *finder) queue(ctx context.Context, conn *broker.Broker) (err error) {
	f.queued, err = ReadQueue(ctx, conn, f.name, func(q Queued) bool { return f.means(q.known()) })
	return err
}

// addQueued adds the queued messages of requests that neither a result nor the ledger has shown.
func (f *finder) addQueued() {
	ids := map[string]bool{} // without owners: only the workers, which know the signers, can say who owns a message that none has received
	for _, k := range f.found {
		ids[k.RequestID] = true
	}
	for _, q := range f.queued {
		if !ids[q.Req.ID] {
			f.add(q.known())
		}
	}
}

func (q Queued) known() KnownRequest {
	k := KnownRequest{RequestID: q.Req.ID, State: stateQueued, MachineID: q.Req.MachineID, RequestedBy: q.Req.RequestedBy, Ticket: q.Req.Ticket, Time: q.Time}
	k.lane, k.sequence = q.Lane, q.Sequence
	if q.invalid != nil {
		k.ClaimedID = q.invalid.ClaimedID
	}
	return k
}

// stateTexts describes the states of a request that has not ended, for people.
var stateTexts = map[string]string{
	stateQueued:                   "waiting to be called",
	string(ledger.StateWaiting):   "waiting to be called",
	message.AwaitingApproval:      "waiting for approval",
	string(ledger.StateCalled):    "being called",
	string(ledger.StateUnknown):   "called, and being looked up",
	string(ledger.StateSubmitted): "waiting for the machine",
}

// stateQueued is the state of a request that no worker has taken.
const stateQueued = "queued"

// Row returns the request as a row of the page.
func (k KnownRequest) Row() admin.ResultRow {
	row := admin.ResultRow{
		RequestID: k.RequestID, ClaimedID: k.ClaimedID, Run: k.Run, MachineID: k.MachineID, RequestedBy: k.RequestedBy, SignedBy: k.SignedBy,
		Ticket: k.Ticket, Outcome: k.state(), Time: k.Time,
	}
	if k.State != string(ledger.StateFinal) {
		row.State = stateTexts[k.State]
	}
	if k.entry != nil && k.entry.Awaits() {
		row.State = stateTexts[message.AwaitingApproval]
	}
	if k.Error != nil {
		row.Code, row.Message = k.Error.Code, k.Error.Message
	}
	return row
}

// state returns the outcome of a request that has ended, otherwise its state in the ledger.
func (k KnownRequest) state() string {
	if k.State == string(ledger.StateFinal) {
		return cmp.Or(k.Outcome, k.State)
	}
	return k.State
}

// ReadQueue returns the messages in the request stream that mine selects. They have the name as id, machine or ticket, so that
// others need not be parsed; "" is any.
func ReadQueue(ctx context.Context, conn *broker.Broker, name string, mine func(Queued) bool) (found []Queued, err error) {
	filter := newPrefilter(name)
	if name == "" || strings.HasPrefix(name, conn.Names().Stream+":") { // a message does not contain its own sequence
		return readQueue(conn, conn.Queue(ctx), filter, mine)
	}
	return readQueue(conn, conn.QueueWith(ctx, filter.mayMatchPayload), filter, mine)
}

func readQueue(conn *broker.Broker, queue iter.Seq2[broker.Message, error], filter prefilter, mine func(Queued) bool) (found []Queued, err error) {
	rules := message.Rules{Stream: conn.Names().Stream, OwnSubjects: conn.Names().OwnSubjects()}
	for m, err := range queue {
		if broker.IsMissing(err) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if !filter.mayMatch(m) {
			continue
		}
		q := Queued{Message: m, Lane: message.LaneOf(conn.Names().Subject, m.Subject)}
		d := message.Delivery{Stream: conn.Names().Stream, Sequence: m.Sequence, Subject: m.Subject, Lane: q.Lane, Header: m.Header, Data: m.Data, Published: m.Time}
		q.Req, q.invalid = rules.Parse(d)
		if seq, is, _ := message.ParseReplay(m.Header); is {
			if _, _, id, err := message.OriginalDelivery(m.Header, m.Data); err == nil {
				q.Replay, q.Req.ID, q.Req.Derived = seq, id, false
			}
		}
		if mine(q) {
			found = append(found, q)
		}
	}
	return found, nil
}

// Queued is a message in the request stream.
type Queued struct {
	broker.Message
	Lane   message.Lane
	Replay uint64 // the dead letter that it replays; 0: none
	Req    message.Request
	// invalid is why the worker will reject its form; nil: its form is valid.
	invalid *message.Invalid
}

// AsResult returns a waiting request with the names that its result will have.
func (q Queued) AsResult() message.Result {
	k := q.known()
	return message.Result{RequestID: k.RequestID, ClaimedID: k.ClaimedID, MachineID: k.MachineID, Ticket: k.Ticket, Batch: q.Req.Batch}
}

// RequestOfDeadLetter returns the request of a dead letter, as far as it can be read, and the id that its message claimed without owning it.
func RequestOfDeadLetter(dead message.DeadLetter, h message.Header, data []byte, stream string) (r message.Request, claimed string, ok bool) {
	original, _, _, err := message.OriginalDelivery(h, data)
	if err != nil {
		return r, "", false
	}
	r, invalid := message.Rules{Stream: stream}.Parse(original)
	switch {
	case invalid != nil:
		claimed = invalid.ClaimedID
	case !r.Derived:
		claimed = r.ID
	}
	if claimed == dead.RequestID {
		claimed = ""
	}
	return r, claimed, true
}
