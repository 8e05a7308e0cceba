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

// batchStatus is the object that tells of a batch.
type batchStatus struct {
	Name     string                 `json:"name"`
	Rows     int                    `json:"rows"`
	Outcomes map[string]int         `json:"outcomes"`
	Queue    *service.Place         `json:"queue,omitempty"`
	Failures []service.BatchFailure `json:"failures"`
}

// knownRow is what there is of a row of a batch.
type knownRow struct {
	entry *ledger.Entry // nil: it waits in the stream alone
	req   message.Request
}

// means reports whether it is the same as a row that is sent now.
func (k knownRow) means(r message.Request) bool {
	if k.entry != nil {
		return k.entry.Means(r)
	}
	return same(k.req, r)
}

// readKnown reads what there is of a client's batch; nil: nothing.
func (s *Server) readKnown(ctx context.Context, conn *broker.Broker, c *clients.Client, name string) (*service.Batch, map[string]knownRow, error) {
	known := map[string]knownRow{}
	of := s.as(c, "")
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

// postBatch takes a batch. The last row goes first: where anything of a batch is known, its last row is, so that more rows under
// the same name are told from one that was not stored to its end. After a crash half way the same again stores the rest.
func (s *Server) postBatch(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	name, p := s.named(r)
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
	told, err := s.tellBatch(ctx, conn, c, name)
	if err != nil || told == nil {
		told = &batchStatus{Name: name, Rows: len(b.rows), Outcomes: map[string]int{}, Failures: []service.BatchFailure{}}
	}
	return write(w, http.StatusAccepted, told)
}

// conflicts reports whether what is known of the name is no part of these rows.
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

// storeBatch publishes the rows that are not known.
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

// tellBatch tells of a client's batch; nil: there is none.
func (s *Server) tellBatch(ctx context.Context, conn *broker.Broker, c *clients.Client, name string) (*batchStatus, error) {
	b, _, err := s.readKnown(ctx, conn, c, name)
	if err != nil || b == nil {
		return nil, err
	}
	if line, err := s.lines.Look(ctx, conn, s.settings); err == nil { // a courtesy, which asks for more rights
		_ = b.Place(ctx, conn, line)
	}
	return &batchStatus{Name: name, Rows: b.Rows, Outcomes: b.Outcomes, Queue: b.Queue, Failures: b.Failures}, nil
}

// getBatch tells of a batch.
func (s *Server) getBatch(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	told, _, p := s.knownBatch(r, c)
	if p != nil {
		return p
	}
	return write(w, http.StatusOK, told)
}

// cancelBatch orders that the client's rows of a batch are taken back, later ones too.
func (s *Server) cancelBatch(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	told, conn, p := s.knownBatch(r, c)
	if p == nil {
		p = s.order(w, r, conn, c, message.Order{Verb: message.VerbCancel, Batch: r.PathValue("name")})
	}
	if p != nil {
		return p
	}
	w.Header().Set("Location", "/v1/batches/"+told.Name)
	w.Header().Set("Retry-After", "5")
	return write(w, http.StatusAccepted, told)
}

func (s *Server) knownBatch(r *http.Request, c *clients.Client) (*batchStatus, *broker.Broker, *problem) {
	conn := s.link.get()
	if conn == nil {
		return nil, nil, fault(codeUnavailable, "the broker can't be reached")
	}
	ctx, cancel := context.WithTimeout(r.Context(), readWithin)
	defer cancel()
	told, err := s.tellBatch(ctx, conn, c, r.PathValue("name"))
	switch {
	case err != nil:
		s.log.Warn("a batch can't be read", zap.String("client", c.Name), zap.Error(err))
		return nil, nil, fault(codeUnavailable, "the batch can't be read now")
	case told == nil:
		return nil, nil, fault(codeUnknownBatch, "none of its rows was stored, or all are forgotten 7 days after their end")
	}
	return told, conn, nil
}
