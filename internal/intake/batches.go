package intake

import (
	"context"
	"iter"
	"net/http"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// batchStatus is the JSON object about a batch.
type batchStatus struct {
	Name     string                 `json:"name"`
	Rows     int                    `json:"rows"`
	Outcomes map[string]int         `json:"outcomes"`
	Queue    *service.Place         `json:"queue,omitempty"`
	Failures []service.BatchFailure `json:"failures"`
}

// knownRow is what is stored of a row of a batch.
type knownRow struct {
	entry *ledger.Entry // nil: so far it is only in the stream
	req   message.Request
}

// means reports whether the stored row is the same request as one sent now.
func (k knownRow) means(r message.Request) bool {
	if k.entry != nil {
		return k.entry.Matches(r)
	}
	return same(k.req, r)
}

// readKnown reads what is stored of a client's batch; nil: nothing.
func (s *Server) readKnown(ctx context.Context, conn *broker.Broker, c *clients.Client, name string) (*service.Batch, map[string]knownRow, error) {
	known := map[string]knownRow{}
	of := s.identityOf(c, "")
	b, err := service.RowsOf{
		Entry: func(e *ledger.Entry) bool {
			if e.SignedBy != of.SignedBy || of.SignedBy == "" && e.Client != of.Client {
				return false
			}
			known[e.ID] = knownRow{entry: e}
			return true
		},
		Queued: func(q service.Queued) bool {
			req, invalid := s.rules.Parse(message.Delivery{Stream: s.rules.Stream, Sequence: q.Sequence, Subject: q.Subject, Header: q.Header, Data: q.Data})
			if invalid != nil || req.Owner() != of.Owner() {
				return false
			}
			if _, taken := known[req.ID]; !taken {
				known[req.ID] = knownRow{req: req}
			}
			return true
		},
	}.Batch(ctx, conn, name)
	return b, known, err
}

// postBatch stores a batch. The last row is published first: if anything of a batch is stored, its last row is. This
// distinguishes more rows under the same name from a batch that was not stored completely. After a crash half way,
// sending the same batch again stores the rest.
func (s *Server) postBatch(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	name, p := s.batchNameOf(r)
	if p == nil && c.Signs() {
		p = fault(codeForbidden, "the client signs its requests itself, each for its subject; send them one by one")
	}
	if p != nil {
		return p
	}
	leave, p := s.enter()
	if p != nil {
		return p
	}
	defer leave()
	b, p := s.readBatch(w, r, c, name)
	if p != nil {
		return p
	}
	conn := s.link.get()
	if conn == nil {
		return fault(codeNotQueued, "the broker can't be reached; send the batch again")
	}
	ctx, cancel := within(r.Context())
	defer cancel()
	_, known, err := s.readKnown(ctx, conn, c, name)
	if err != nil {
		s.log.Warn("what is known of a batch can't be read", zap.String("client", c.Name), zap.Error(err))
		return fault(codeNotQueued, "what is known of the batch can't be read now; send it again")
	}
	if b.conflicts(known) {
		return fault(message.CodeIDConflict, "name: the client has used it for other rows; choose another")
	}
	if p := s.storeBatch(ctx, conn, c, b, known); p != nil {
		return p
	}
	w.Header().Set("Location", "/v1/batches/"+name)
	w.Header().Set("Retry-After", "5")
	st, err := s.statusOfBatch(ctx, conn, c, name)
	if err != nil || st == nil {
		st = &batchStatus{Name: name, Rows: len(b.rows), Outcomes: map[string]int{}, Failures: []service.BatchFailure{}}
	}
	return write(w, http.StatusAccepted, st)
}

// conflicts reports whether what is stored under the name belongs to other rows than these.
func (b *batch) conflicts(known map[string]knownRow) bool {
	if len(known) == 0 {
		return false
	}
	for id, k := range known {
		at, there := b.byID[id]
		if !there || !k.means(b.rows[at].req) {
			return true
		}
	}
	_, last := known[b.rows[len(b.rows)-1].req.ID]
	return !last
}

// storeBatch publishes the rows that are not stored yet.
func (s *Server) storeBatch(ctx context.Context, conn *broker.Broker, c *clients.Client, b *batch, known map[string]knownRow) *problem {
	stored := len(known)
	err := conn.PublishAll(ctx, b.outgoing(known), func(broker.Stored) { stored++ })
	if err == nil {
		s.log.Debug("a batch was stored", zap.String("client", c.Name), zap.Int("rows", len(b.rows)))
		return nil
	}
	s.log.Warn("a batch was not stored to its end", zap.String("client", c.Name), zap.Int("stored", stored), zap.Bool("certain", broker.NotStored(err)), zap.Error(err))
	if stored == 0 && broker.NotStored(err) {
		return fault(codeNotQueued, "the broker has stored no row; send the batch again")
	}
	p := fault(codeUnknown, "the broker has not stored all rows; send the same again under the same name: no row is queued twice")
	p.Stored = &stored
	return p
}

// outgoing are the rows to be published, the last one first.
func (b *batch) outgoing(known map[string]knownRow) iter.Seq2[broker.Outgoing, error] {
	return func(yield func(broker.Outgoing, error) bool) {
		for i := range b.rows {
			row := &b.rows[(i+len(b.rows)-1)%len(b.rows)]
			k, is := known[row.req.ID]
			again := 0
			if is && k.entry != nil && k.entry.State == ledger.StateFinal && k.entry.Outcome == message.DryRun {
				is, again = false, k.entry.Run+1
			}
			if is {
				continue
			}
			if !yield(broker.Outgoing{Name: "a row", Lane: row.Lane, MessageID: row.messageID(b, again), Header: row.Header, Payload: row.Data}, nil) {
				return
			}
		}
	}
}

// statusOfBatch is the status of a client's batch; nil: there is none.
func (s *Server) statusOfBatch(ctx context.Context, conn *broker.Broker, c *clients.Client, name string) (*batchStatus, error) {
	b, _, err := s.readKnown(ctx, conn, c, name)
	if err != nil || b == nil {
		return nil, err
	}
	if line, err := s.lines.Look(ctx, conn, s.settings); err == nil { // optional, because it needs more permissions
		_ = b.Place(ctx, conn, line)
	}
	return &batchStatus{Name: name, Rows: b.Rows, Outcomes: b.Outcomes, Queue: b.Queue, Failures: b.Failures}, nil
}

// getBatch answers with the status of a batch.
func (s *Server) getBatch(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	st, _, p := s.knownBatch(r, c)
	if p != nil {
		return p
	}
	return write(w, http.StatusOK, st)
}

// cancelBatch publishes an order that cancels the client's rows of a batch, later ones too.
func (s *Server) cancelBatch(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	st, conn, p := s.knownBatch(r, c)
	if p == nil {
		p = s.order(w, r, conn, c, message.Order{Verb: message.VerbCancel, Batch: r.PathValue("name")})
	}
	if p != nil {
		return p
	}
	w.Header().Set("Location", "/v1/batches/"+st.Name)
	w.Header().Set("Retry-After", "5")
	return write(w, http.StatusAccepted, st)
}

func (s *Server) knownBatch(r *http.Request, c *clients.Client) (*batchStatus, *broker.Broker, *problem) {
	conn := s.link.get()
	if conn == nil {
		return nil, nil, fault(codeUnavailable, "the broker can't be reached")
	}
	ctx, cancel := context.WithTimeout(r.Context(), readWithin)
	defer cancel()
	st, err := s.statusOfBatch(ctx, conn, c, r.PathValue("name"))
	switch {
	case err != nil:
		s.log.Warn("a batch can't be read", zap.String("client", c.Name), zap.Error(err))
		return nil, nil, fault(codeUnavailable, "the batch can't be read now")
	case st == nil:
		return nil, nil, fault(codeUnknownBatch, "none of its rows was stored, or all are forgotten 7 days after their end")
	}
	return st, conn, nil
}
