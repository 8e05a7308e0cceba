// Package policy decides what each signer may ask, by a file that is read again when it changes.
package policy

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"example.com/unrestrict-worker/internal/message"
)

// Policy is what each signer may ask, read from a file (docs/policy.md). A nil *Policy allows everything. It is safe for
// concurrent use.
type Policy struct {
	path    string
	signers *message.Signers // the signers that rules may name; nil: any

	mu    sync.Mutex
	seen  os.FileInfo // the file that was read last, whether it was good or not
	rules ruleSet     // never changed, only replaced
	err   error
}

// ruleSet is the content of a policy file.
type ruleSet struct {
	signers map[string]*Rule // by name or public nkey
	others  *Rule            // the default rule; nil: signers that are not named may ask nothing
	lines   map[string]int   // the line of each signer
}

// Rule is what one signer may ask. The zero value allows everything.
type Rule struct {
	comment  *regexp.Regexp
	ticket   bool           // required
	PerHour  int            // machines; 0: no limit
	Urgent   int            // requests an hour on the urgent lane; 0: no limit
	lanes    []message.Lane // nil: all
	machines map[string]bool
	Operate  bool // may give orders about others' requests

	Approvals *Approvals // what its requests await before their call; nil: nothing
}

// maxPolicy bounds the file, in bytes: some twenty thousand machines.
const maxPolicy = 1 << 20

// Load reads a policy file. Whenever a request is judged, the file is checked, and read again if it has changed. If it can't
// be read then, or has any mistake, the previous rules stay in force and Err reports why. The error joins all mistakes
// (Unwrap() []error), each with file and line. A rule that matches no trusted signer is a mistake: most likely the name is
// misspelt, and the signer who was meant has another rule or none.
func Load(path string, signers *message.Signers) (*Policy, error) {
	p := &Policy{path: path, signers: signers}
	p.reload()
	if p.err != nil {
		return nil, p.err
	}
	return p, nil
}

// Err is why the file's present content is not in use; nil if it is. It also reports a rule whose signer is no longer
// trusted: the worker would not start with it again.
func (p *Policy) Err() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload()
	if p.err != nil {
		return p.err
	}
	return p.join(p.rules.unknownSigners(p.signers))
}

// join joins all mistakes, each prefixed with the file.
func (p *Policy) join(mistakes []error) error {
	for i, m := range mistakes {
		mistakes[i] = fmt.Errorf("%s, %w", p.path, m)
	}
	return errors.Join(mistakes...)
}

// unknownSigners returns a mistake for each rule that names no trusted signer.
func (r ruleSet) unknownSigners(signers *message.Signers) (mistakes []error) {
	if signers == nil {
		return nil
	}
	names := signers.Names()
	byLine := func(a, b string) int { return r.lines[a] - r.lines[b] }
	for _, name := range slices.SortedFunc(maps.Keys(r.lines), byLine) {
		if !signers.Knows(name) {
			mistakes = append(mistakes, noSigner(r.lines[name], name, names))
		}
	}
	return append(mistakes, r.approversMissing(signers)...)
}

func noSigner(line int, name string, names []string) error {
	return fmt.Errorf("line %d: there is no trusted signer %s; there are %s", line, printable(name), strings.Join(names, ", "))
}

// reload reads the file if it is not the one seen last; the caller holds mu.
func (p *Policy) reload() {
	info, err := os.Stat(p.path)
	if err == nil && p.seen != nil && os.SameFile(p.seen, info) && p.seen.ModTime().Equal(info.ModTime()) && p.seen.Size() == info.Size() {
		return
	}
	var data []byte
	if err == nil {
		data, err = message.ReadBounded(p.path, maxPolicy)
	}
	if err != nil {
		p.seen, p.err = nil, fmt.Errorf("policy file: %w", err)
		return
	}
	rules, mistakes := parsePolicy(data)
	unknown := rules.unknownSigners(p.signers)
	p.seen = message.StableInfo(info)
	if len(unknown) > 0 {
		p.seen = nil // read again: they may become trusted without a change of this file
	}
	if p.err = p.join(append(mistakes, unknown...)); p.err == nil {
		p.rules = rules
	}
}

// Rule returns the rule for a signer: by nkey, then by name, then the default; nil if none applies. who is the key that the
// rate is counted under: nkeys that share a name share the rate.
func (p *Policy) Rule(name, key string) (who string, r *Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload()
	if r = p.rules.signers[key]; r != nil {
		return key, r
	}
	if r = p.rules.signers[name]; r != nil {
		return name, r
	}
	return name, p.rules.others
}

// Forbids returns why the signer may not make this request; "" if it may. It checks neither the rate nor the lane.
func (r *Rule) Forbids(req message.Request) string {
	switch {
	case r == nil:
		return "the policy names no signer " + req.SignedBy + " and has no default; have one of them added"
	case r.comment != nil && !r.comment.MatchString(req.Comment):
		return "comment: does not match " + r.comment.String() + ", which the policy asks of signer " + req.SignedBy
	case r.ticket && !strings.ContainsFunc(req.Ticket, isLetterOrDigit):
		return "ticket: is required of signer " + req.SignedBy + " by the policy; give one with a letter or a digit in it"
	case r.machines != nil && !r.machines[req.MachineID]:
		return "machineId: is none of those that the policy names for signer " + req.SignedBy
	}
	return ""
}

// ForbidsLane returns why the signer may not use the lane; "" if it may.
func (r *Rule) ForbidsLane(signer string, l message.Lane) string {
	if r == nil || r.lanes == nil || slices.Contains(r.lanes, l) {
		return ""
	}
	return fmt.Sprintf("the policy does not let signer %s use the lane %s, but %s", signer, l, message.LaneNames(r.lanes))
}

func isLetterOrDigit(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
