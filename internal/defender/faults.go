package defender

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
)

// fault is the error of an exchange that ended without an answer. Its class depends on whether a byte was sent.
func fault(ctx context.Context, op string, err error, sent bool, token *secret) *Error {
	if ctx.Err() != nil {
		return cancelled(ctx, op, sent)
	}
	e := &Error{Op: op, Class: Transient, Code: unsentCode(err), Sent: sent, Err: token.sanitize(err)}
	if sent {
		e.Class, e.Code = Ambiguous, sentCode(err)
	}
	return e
}

// cancelled is the error of a call whose context has ended.
func cancelled(ctx context.Context, op string, sent bool) *Error {
	e := &Error{Op: op, Class: Transient, Code: codeCancelled, Sent: sent, Err: ctx.Err()}
	if errors.Is(e.Err, context.DeadlineExceeded) {
		e.Code = codeTimeout
	}
	if sent {
		e.Class = Ambiguous
	}
	return e
}

func sentCode(err error) string {
	switch {
	case timedOut(err):
		return codeTimeout
	case strings.Contains(err.Error(), "malformed"):
		return codeUnreadable // net/http's errors about an answer that is not HTTP have no type
	}
	return codeCut
}

func unsentCode(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return codeProxy
	case errors.As(err, &dns):
		return codeDNS
	case errors.Is(err, syscall.ECONNREFUSED):
		return codeRefused
	case errors.Is(err, errHandshake):
		return codeTLS
	case timedOut(err):
		return codeTimeout
	}
	return codeConnect
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
