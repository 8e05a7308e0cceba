package defender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Unrestrict sends the one POST that p permits, unless p's grant is no longer fresh (class Stale). A nil error means
// that the API accepted the call, or answered with the action that was already under way. The machine id is 40
// hexadecimal digits. Errors are *Error.
func (c *Client) Unrestrict(ctx context.Context, p Permit, machineID, comment string) (MachineAction, error) {
	machineID = strings.ToLower(machineID)
	if !validMachineID(machineID) {
		return MachineAction{}, &Error{Op: opUnrestrict, Class: Rejected, Code: codeMachineID, Message: "a machine id is 40 hexadecimal digits"}
	}
	body, err := commentBody(comment)
	if err != nil {
		return MachineAction{}, &Error{Op: opUnrestrict, Class: Rejected, Code: codeUnreadable, Err: err}
	}
	var a MachineAction
	a.Exchange, err = c.exchange(ctx, p, call{
		op: opUnrestrict, path: "/api/machines/" + machineID + "/unrestrictCodeExecution", body: body,
		read: func(body io.Reader) (err error) {
			a, err = c.entity(body, p.token.secret)
			if err == nil && (a.MachineID != "" && !strings.EqualFold(a.MachineID, machineID) || a.Type != "" && a.Type != TypeUnrestrict) {
				err = errAnother
			}
			return err
		},
	})
	if err != nil {
		return MachineAction{}, err
	}
	p.token.accepted.Store(true)
	return a, nil
}

// ReadyToCancel is Ready for Cancel.
func (c *Client) ReadyToCancel(ctx context.Context) (Permit, error) {
	return c.ready(ctx, opCancel, UseFollow)
}

// Cancel sends the one POST that p permits, which asks to cancel an action. A nil error means that the API accepted it.
// How the action ends shows only in the list of actions. Errors are *Error.
func (c *Client) Cancel(ctx context.Context, p Permit, id, comment string) (Exchange, error) {
	body, err := commentBody(comment)
	if err != nil || id == "." || id == ".." || printable(id) == "" {
		return Exchange{}, &Error{Op: opCancel, Class: Rejected, Code: codeActionID, Message: "that is no action's id", Err: err}
	}
	return c.exchange(ctx, p, call{op: opCancel, path: "/api/machineactions/" + url.PathEscape(id) + "/cancel", body: body, read: func(body io.Reader) error {
		_, err := io.Copy(io.Discard, body)
		return err
	}})
}

// Action looks one action up. use is "lookup" or "follow". Errors are *Error, or the budget's own, wrapped.
func (c *Client) Action(ctx context.Context, use, id string) (MachineAction, error) {
	if id == "." || id == ".." || printable(id) == "" {
		return MachineAction{}, &Error{Op: opGet, Class: Rejected, Code: codeActionID, Message: "that is no action's id"}
	}
	p, err := c.ready(ctx, opGet, use)
	if err != nil {
		return MachineAction{}, err
	}
	var a MachineAction
	a.Exchange, err = c.exchange(ctx, p, call{op: opGet, path: "/api/machineactions/" + url.PathEscape(id), read: func(body io.Reader) (err error) {
		a, err = c.entity(body, p.token.secret)
		if err == nil && !strings.EqualFold(a.ID, id) {
			err = errAnother
		}
		return err
	}})
	if err != nil {
		return MachineAction{}, err
	}
	return a, nil
}

// Page is one page of a list.
type Page struct {
	Exchange Exchange
	Actions  []MachineAction
	More     bool // the page was cut short, by the API or by the time-out: more actions match, whatever Top was
}

// Page reads one page of actions in one exchange; the API's next links are never followed. use is "lookup" or "follow".
// Errors are *Error, or the budget's own, wrapped. If the id of an entity can't be read, the error is Ambiguous
// (unreadableAnswer) and the readable entities come with it: such a page does not prove that an action is absent.
//
// A page that is too large to arrive within the time-out is no error. What has arrived is the beginning of the list, oldest
// first, and the caller asks for the rest. Otherwise a slow connection could never read a long list.
func (c *Client) Page(ctx context.Context, use string, q Query) (Page, error) {
	p, err := c.ready(ctx, opList, use)
	if err != nil {
		return Page{}, err
	}
	var page Page
	page.Exchange, err = c.exchange(ctx, p, call{op: opList, path: "/api/machineactions?" + q.encode(), read: func(body io.Reader) (err error) {
		page, err = decodeList(body, func(a *MachineAction) { c.bound(a, p.token.secret) })
		if errors.Is(err, errTimeout) && len(page.Actions) > 0 && !q.Newest {
			page.More, err = true, nil
		}
		return err
	}})
	return page, err
}

// entity decodes the one action in an answer.
func (c *Client) entity(body io.Reader, token *secret) (MachineAction, error) {
	content, err := io.ReadAll(body)
	if err != nil {
		return MachineAction{}, fmt.Errorf("read the answer: %w", err)
	}
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte(byteOrderMark)))
	if len(content) == 0 {
		return MachineAction{}, errNoAction
	}
	a, err := decodeAction(content)
	if err != nil {
		return MachineAction{}, err
	}
	if c.bound(&a, token); a.ID == "" {
		err = errNoAction
	}
	return a, err
}

// bound removes from an action what could not be stored or published, and the token.
func (c *Client) bound(a *MachineAction, token *secret) {
	a.Status = printable(a.Status)
	a.Cut = len(a.Raw) > c.maxAction
	if a.Cut {
		a.Raw = nil
	}
	clean := token.cutJSON(a.Raw)
	if !a.Cut && bytes.Equal(clean, a.Raw) {
		return
	}
	a.Raw = clean
	for _, field := range []*string{&a.ID, &a.Status, &a.RequestorComment} {
		if token.in([]byte(*field)) {
			*field = ""
		}
	}
}

// validMachineID rejects everything that could make the path lead elsewhere.
func validMachineID(id string) bool {
	return len(id) == 40 && strings.Trim(id, "0123456789abcdef") == ""
}

// commentBody is {"Comment":"..."}: the API's parameter names are case-sensitive ([doc] common-errors.md).
func commentBody(comment string) ([]byte, error) {
	return json.Marshal(struct{ Comment string }{comment}, jsontext.AllowInvalidUTF8(true), jsontext.EscapeForJS(true))
}
