package why

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/message"
)

// byOwner makes a history for each owner of the id: the signer or the client whose request it is.
func (s *History) byOwner() []*History {
	of := map[string]*History{}
	get := func(owner, signedBy, client string) *History {
		if of[owner] == nil {
			of[owner] = &History{id: s.id, MessageGone: s.MessageGone, notes: s.notes, signedBy: signedBy, client: client}
		}
		return of[owner]
	}
	names := map[string]string{} // of signers, by nkey
	for _, e := range s.entries {
		names[e.Signer] = e.SignedBy
		get(cmp.Or(e.SignedBy, e.Client), e.SignedBy, e.Client).Entry = &e
	}
	for _, t := range s.results {
		if r := t.result; r.RequestID == s.id {
			o := get(cmp.Or(r.SignedBy, r.Client), r.SignedBy, r.Client)
			o.results = append(o.results, t)
		}
	}
	for _, l := range s.letters {
		if l.Dead.SignedBy != "" {
			names[l.Dead.Delivery.Header.Get(message.HeaderSigner)] = l.Dead.SignedBy
		}
	}
	// A message that only names a key belongs to the signer who is known to have it. If signatures are not required it belongs to
	// nobody.
	sent := func(signedBy string, h message.Header) *History {
		key, client := h.Get(message.HeaderSigner), h.Get(message.HeaderClient)
		signedBy = cmp.Or(signedBy, names[key])
		if nobodys := of[""]; signedBy == "" && key != "" && nobodys == nil {
			signedBy = key
		}
		return get(cmp.Or(signedBy, client), signedBy, client)
	}
	for _, l := range s.letters {
		o := sent(l.Dead.SignedBy, l.Dead.Delivery.Header)
		o.letters = append(o.letters, l)
	}
	for _, q := range s.Queued {
		o := sent("", q.Header)
		o.Queued = append(o.Queued, q)
	}
	for _, t := range s.results {
		if r := t.result; r.RequestID != s.id { // a message that was refused is nobody's request
			o := of[cmp.Or(r.SignedBy, r.Client)]
			if o == nil {
				o = get("", "", "")
			}
			o.results = append(o.results, t)
		}
	}
	var all []*History
	for _, owner := range slices.Sorted(maps.Keys(of)) {
		all = append(all, of[owner])
	}
	return all
}

// chooseOwner returns the histories of one signer or client, or all if none is named.
func chooseOwner(all []*History, id, name string) ([]*History, error) {
	var chosen []*History
	var owners []string
	for _, s := range all {
		owner := cmp.Or(s.signedBy, s.client)
		if name == "" || owner == name {
			chosen = append(chosen, s)
		}
		if owner != "" {
			owners = append(owners, session.Plain(owner))
		}
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("nothing is known of %s: it is no id, machine or ticket of a request in the queue, in the ledger, which forgets a request 7 days after its end, or in a result or dead letter that is kept", session.Plain(id))
	case len(chosen) == 0 && owners == nil:
		return nil, fmt.Errorf("the request %s is no signer's or client's; leave out --signed-by", session.Plain(id))
	case len(chosen) == 0:
		return nil, fmt.Errorf("%s has no request %s; it is one of: %s", session.Plain(name), session.Plain(id), strings.Join(owners, ", "))
	}
	return chosen, nil
}
