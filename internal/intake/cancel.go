package intake

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/message"
)

// cancel publishes an order that cancels a request, and answers with the status as get does. It orders nothing for a
// request that has ended or is unknown.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	conn := s.link.get()
	if conn == nil {
		return fault(codeNotQueued, "the broker can't be reached; send the order again")
	}
	ctx, cancel := context.WithTimeout(r.Context(), placeWithin)
	defer cancel()
	id := r.PathValue("id")
	k, err := s.find(ctx, conn, s.identityOf(c, id))
	if err != nil {
		return fault(codeNotQueued, "whether there is such a request can't be read now; send the order again")
	}
	if k.empty() {
		return unknownRequest()
	}
	if !k.ended() {
		if p := s.order(w, r, conn, c, message.Order{Verb: message.VerbCancel, ID: id}); p != nil {
			return p
		}
	}
	st, err := s.statusOf(ctx, conn, id, k)
	if err != nil {
		st = status{ID: id, Status: notStarted} // the order is stored all the same
	}
	return s.accepted(w, r, st)
}

// order publishes an order on the control stream: the client's own, signed by it, or one that the intake makes and
// signs for it.
func (s *Server) order(w http.ResponseWriter, r *http.Request, conn *broker.Broker, c *clients.Client, o message.Order) *problem {
	d := message.Delivery{Subject: s.link.cfg.Names.ControlSubject, Header: message.Header{message.HeaderClient: {c.Name}}, Published: time.Now()}
	p := s.writeOrder(w, r, c, o, &d)
	if p != nil {
		return p
	}
	ref, err := conn.PublishOrder(context.WithoutCancel(r.Context()), d.Header, d.Data)
	if err != nil {
		s.log.Warn("an order was not stored", zap.String("client", c.Name), zap.Bool("certain", broker.NotStored(err)), zap.Error(err))
		if broker.NotStored(err) {
			return fault(codeNotQueued, "the broker has not stored the order; send it again")
		}
		return fault(codeUnknown, "the broker has not answered; send the order again")
	}
	s.log.Debug("an order was stored", zap.String("client", c.Name), zap.String("message", ref))
	return nil
}

func (s *Server) writeOrder(w http.ResponseWriter, r *http.Request, c *clients.Client, o message.Order, d *message.Delivery) *problem {
	if c.Signs() {
		return s.signedOrder(w, r, c, o, d)
	}
	o.IssuedAt = time.Now().UTC()
	var err error
	if d.Data, err = o.Encode(); err == nil && c.Seed != nil {
		var signer, signature string
		signer, signature, err = message.Sign(c.Seed, d.Subject, d.Data)
		d.Header[message.HeaderSigner], d.Header[message.HeaderSignature] = []string{signer}, []string{signature}
	}
	if err != nil {
		return fault(codeNotQueued, "the order can't be made")
	}
	return nil
}

// signedOrder takes the order from the body, if it has the client's own signature and matches the HTTP request.
func (s *Server) signedOrder(w http.ResponseWriter, r *http.Request, c *clients.Client, o message.Order, d *message.Delivery) *problem {
	var p *problem
	if d.Data, p = readBody(w, r, message.MaxPayload); p != nil {
		return p
	}
	for _, name := range []string{message.HeaderSigner, message.HeaderSignature} {
		if value := r.Header.Get(name); value != "" {
			d.Header[name] = []string{value}
		}
	}
	given, invalid := s.rules.ParseOrder(*d)
	switch {
	case invalid != nil:
		return fault(invalid.Code, invalid.Message)
	case given.Key != c.Signer:
		return fault(codeForbidden, "the signature is another's; the client's own orders are taken here")
	case given.Verb != o.Verb || given.ID != o.ID || given.Batch != o.Batch:
		return fault(message.CodeMalformed, "the body orders something else than is asked for; sign an order with this verb and name")
	}
	return nil
}
