package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
)

// Selection selects the dead letters that match every flag given. At least
// one is required, so that only --all selects all.
type Selection struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Request ids; an id that a rejected message claimed means that one."`
	All      bool     `help:"All dead letters."`
	Code     string   `placeholder:"CODE" help:"All dead letters with this error code."`
	Seq      uint64   `placeholder:"SEQ" help:"The dead letter with this sequence in the dead-letter stream: distinguishes several with one id."`
	SignedBy string   `placeholder:"NAME" help:"Of those, only requests of this signer or client."`
	JSON     bool     `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (s Selection) Validate() error {
	if len(s.IDs) == 0 && !s.All && s.Code == "" && s.Seq == 0 {
		return config.BadInput("say which dead letters: request ids, --seq SEQ, --code CODE or --all")
	}
	if s.All && (len(s.IDs) > 0 || s.Code != "" || s.Seq != 0) {
		return config.BadInput("--all means every dead letter: leave out request ids, --seq and --code")
	}
	return nil
}

// Matches reports whether the dead letter is selected.
func (s Selection) Matches(l Letter) bool {
	return (len(s.IDs) == 0 || slices.Contains(s.IDs, l.Dead.RequestID) || slices.Contains(s.IDs, l.Claimed)) &&
		(s.Code == "" || l.Dead.Code == s.Code) && (s.Seq == 0 || l.Seq == s.Seq) && (s.SignedBy == "" || l.owner() == s.SignedBy)
}

// Unknown names the ids and the sequence that no dead letter has.
func (s Selection) Unknown(letters []Letter) error {
	var names []string
	for _, id := range s.IDs {
		if !slices.ContainsFunc(letters, func(l Letter) bool { return l.Dead.RequestID == id || l.Claimed == id }) {
			names = append(names, session.Plain(id))
		}
	}
	if s.Seq > 0 && len(letters) == 0 && len(names) == 0 {
		names = append(names, fmt.Sprintf("sequence %d", s.Seq))
	}
	if names == nil {
		return nil
	}
	of := ""
	if s.SignedBy != "" {
		of = " of " + session.Plain(s.SignedBy)
	}
	return fmt.Errorf("no such dead letter%s: %s (worker deadletter list shows those there are)", of, strings.Join(names, ", "))
}

// own leaves out dead letters that only claim an id that another one owns: a forged message must not make an owner's id
// ambiguous.
func (s Selection) own(letters []Letter) []Letter {
	has := map[string]bool{}
	for _, l := range letters {
		has[l.Dead.RequestID] = true
	}
	return slices.DeleteFunc(letters, func(l Letter) bool {
		return len(s.IDs) > 0 && !slices.Contains(s.IDs, l.Dead.RequestID) && has[l.Claimed]
	})
}

// Ambiguous refuses an id of several dead letters: one may be of another message, or out of date.
func (s Selection) Ambiguous(letters []Letter) error {
	for _, id := range s.IDs {
		var seqs []string
		for _, l := range letters {
			if l.Dead.RequestID == id || l.Claimed == id {
				seqs = append(seqs, strconv.FormatUint(l.Seq, 10))
			}
		}
		if len(seqs) > 1 {
			return fmt.Errorf("there are %d dead letters of %s: say which with --seq, one of %s, or whose with --signed-by", len(seqs), session.Plain(id), strings.Join(seqs, ", "))
		}
	}
	return nil
}

// each calls do for each selected dead letter. If before is given, an id must select only one of them, and before is called
// first with all of them and can refuse. Ids that select none are named at the end, with exit status 1.
func (s Selection) each(ctx context.Context, env *session.Env, before func(*broker.Broker, []Letter) (bool, error), do func(*broker.Broker, Letter) error) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	letters, err := ReadLetters(ctx, conn, s.Matches)
	if err != nil {
		return err
	}
	unknown := s.Unknown(letters)
	if len(letters) == 0 && unknown != nil {
		return unknown
	}
	if before != nil {
		letters = s.own(letters)
		if err := s.Ambiguous(letters); err != nil {
			return err
		}
		if goOn, err := before(conn, letters); err != nil || !goOn {
			return errors.Join(err, unknown)
		}
	}
	for _, l := range letters {
		err := ctx.Err()
		if err == nil {
			err = do(conn, l)
		}
		if ctx.Err() != nil {
			return errors.New("interrupted; run the same command again to go on")
		}
		if err != nil {
			return err
		}
	}
	return unknown
}
