package submit

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// RowStatus is what is known of a row and its result.
type RowStatus struct {
	Line        int
	ID, Machine string
	ticket      string
	metadata    string    // JSON
	expires     time.Time // zero: never
	seq         uint64    // of the row's message in the request stream; 0: not published
	duplicate   bool      // the broker had that message already
	resultSeq   uint64    // sequence of the result that the rest is from; 0: none
	of          string    // id of the request that the result is of: the row's, or that of its message if another request has the row's id
	run         int
	Outcome     string
	Final       bool
	publishedAt time.Time // when the result was published, by the broker's clock
	reopened    bool      // it was final, but its message was published again since, and what the worker decides about that is not known yet
	Code        string
	Message     string
	advice      string // what to do about it
	action      string // id of the machine action
	received    time.Time
	finished    time.Time
}

// claim is a result of a message that claimed a row's id without owning it, as any message can. Whether it was the row's own
// message is known once that is published.
type claim struct {
	resultSeq   uint64
	publishedAt time.Time
	result      message.Result
}

// collector collects the results of a bulk's rows. It is safe for concurrent use.
type collector struct {
	stream string // of requests
	signer string // the nkey that rows are signed with; "": they are not

	mu     sync.Mutex
	rows   []*RowStatus
	byID   map[string]*RowStatus
	open   int    // rows without a final result
	upTo   int    // the line of the last row that Progress counts
	seen   uint64 // sequence of the last result read
	counts map[string]int
	claims map[string]claim // by STREAM:SEQ, of rows that are not published yet
}

func newCollector(stream string) *collector {
	return &collector{stream: stream, upTo: math.MaxInt, byID: map[string]*RowStatus{}, counts: map[string]int{}, claims: map[string]claim{}}
}

// add adds a row, before any result.
func (h *collector) add(p Prepared) {
	f := &RowStatus{
		Line: p.Line, ID: p.Message.ID, Machine: strings.ToLower(p.Message.MachineID),
		ticket: p.Message.Ticket, metadata: string(p.Message.Metadata),
	}
	f.expires, _ = time.Parse(time.RFC3339, p.Message.ExpiresAt) // it was checked; "" is never
	h.rows = append(h.rows, f)
	h.byID[f.ID] = f
	h.open++
}

// take reads one message of the results stream; StopFollow when no row is open.
func (h *collector) take(m broker.Message) error {
	var r message.Result
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = max(h.seen, m.Sequence)
	if json.Unmarshal(m.Data, &r) != nil {
		return nil // somebody else's
	}
	if f := h.byID[r.RequestID]; f != nil && f.Machine == r.MachineID && h.ours(r) {
		h.update(f, m.Sequence, m.Time, r)
	}
	if f := h.byID[r.ClaimedID]; f != nil {
		if f.seq == 0 {
			h.claims[r.RequestID] = claim{m.Sequence, m.Time, r}
		} else if r.RequestID == h.ref(f.seq) {
			h.update(f, m.Sequence, m.Time, r)
		}
	}
	if h.open == 0 {
		return broker.StopFollow()
	}
	return nil
}

// ours is false for a result of another owner's request, which may have the same id: ids belong to signers and clients. If
// a signer's name is not its nkey, it is not known which signer is ours, and any counts.
func (h *collector) ours(r message.Result) bool {
	switch {
	case h.signer == "":
		return r.SignedBy == "" && r.Client == ""
	case nkeys.IsValidPublicKey(r.SignedBy):
		return r.SignedBy == h.signer
	}
	return r.SignedBy != "" || r.Client == ""
}

func (h *collector) ref(seq uint64) string { return h.stream + ":" + strconv.FormatUint(seq, 10) }

// update relies on the order of the results stream, in which a later run follows an earlier one. Only "submitted" can come
// late, after a crash.
func (h *collector) update(f *RowStatus, seq uint64, publishedAt time.Time, r message.Result) {
	if seq <= f.resultSeq || f.Final && !r.Final && r.Run <= f.run {
		return
	}
	h.close(f, false)
	if f.of != r.RequestID || f.run != r.Run {
		f.of, f.action = r.RequestID, "" // the action is of an earlier run, or of the request that has the id
	}
	f.resultSeq, f.publishedAt, f.run, f.Outcome, f.received, f.finished = seq, publishedAt, r.Run, r.Outcome, r.ReceivedAt, r.FinishedAt
	f.Code, f.Message, f.advice, f.reopened = "", "", service.AdviceOf(r), false
	if why := service.WhyEnded(r); why != nil {
		f.Code, f.Message = why.Code, why.Message
	}
	var action struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(r.MachineAction, &action) == nil && action.ID != "" {
		f.action = action.ID
	}
	h.close(f, r.Final)
}

// close closes a row, or opens it again.
func (h *collector) close(f *RowStatus, final bool) {
	if final == f.Final {
		return
	}
	if f.Final = final; final {
		h.open--
		h.counts[f.Outcome]++
	} else {
		h.open++
		h.counts[f.Outcome]--
	}
}

// published records where a row's own message is. If the broker recognised it as a duplicate, an earlier result of the row
// holds. Otherwise the worker decides again whether it is the same request, and a row of a dry run may now be carried out.
func (h *collector) published(f *RowStatus, s broker.Stored) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.seq, f.duplicate = s.Sequence, s.Duplicate
	if c, ok := h.claims[h.ref(f.seq)]; ok {
		h.update(f, c.resultSeq, c.publishedAt, c.result)
	}
	if f.Final && (!s.Duplicate || f.Outcome == message.DryRun) {
		h.close(f, false)
		f.reopened = true
	}
}

// reopenedRows returns the rows that were final before and whose message was published again.
func (h *collector) reopenedRows() (rows []*RowStatus, seqs []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.rows {
		if f.reopened {
			rows, seqs = append(rows, f), append(seqs, f.seq)
		}
	}
	return rows, seqs
}

// confirm accepts the earlier results of rows as final, unless another result was published meanwhile.
func (h *collector) confirm(rows []*RowStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range rows {
		if f.reopened {
			f.reopened = false
			h.close(f, true)
		}
	}
}

// copyOf returns the present status of a row.
func (h *collector) copyOf(row int) RowStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.rows[row]
}

// last returns the sequence of the last result read.
func (h *collector) last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen
}

// Progress is how far the rows have come.
type Progress struct {
	Open, underWay int
	counts         map[string]int // of final rows, by outcome
}

func (h *collector) Progress() Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Progress{counts: map[string]int{}}
	for outcome, n := range h.counts {
		if n > 0 {
			s.counts[outcome] = n
		}
	}
	for _, f := range h.rows {
		if f.Final || f.Line > h.upTo {
			continue
		}
		s.Open++
		if f.Outcome == message.Submitted {
			s.underWay++
		}
	}
	return s
}

// rerun returns the run that a row of an earlier dry run gets if it is published again; 0 for other rows.
func (f *RowStatus) rerun() int {
	if f.Final && f.Outcome == message.DryRun {
		return f.run + 1
	}
	return 0
}

// succeeded reports whether a row ended as it should. If actions are not followed, the accepted call is enough.
func (f *RowStatus) succeeded() bool {
	return f.Final && slices.Contains([]string{message.Succeeded, message.Submitted, message.DryRun}, f.Outcome)
}
