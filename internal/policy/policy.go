// Package policy says what each signer may ask, by a file that is read again when it changes.
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
	signers *message.Signers // whom the rules can be about; nil: anybody

	mu    sync.Mutex
	seen  os.FileInfo // the file that was read last, whether it was good or not
	rules ruleSet     // never changed, only replaced
	err   error
}

// policyRules is the content of a policy file.
type ruleSet struct {
	signers map[string]*Rule // by name or public nkey
	others  *Rule            // nil: whoever is not named may ask nothing
	lines   map[string]int   // where each signer is named
}

// Rule is what one signer may ask. The zero value: everything.
type Rule struct {
	comment  *regexp.Regexp
	ticket   bool           // required
	PerHour  int            // machines; 0: no limit
	Urgent   int            // requests an hour on the urgent lane; 0: no limit
	lanes    []message.Lane // nil: all
	machines map[string]bool
	Operate  bool // may order about others' requests
}

// maxPolicy bounds the file, in bytes: some twenty thousand machines.
const maxPolicy = 1 << 20

// Load reads a policy file. The file is looked at again whenever a request is judged, and read when it has changed;
// if it can't be read then, or is wrong anywhere, the rules read last stay and Err says so. The error joins all mistakes
// (Unwrap() []error), each with file and line. A rule for none of the signers is a mistake: most likely the name is
// misspelt, and the signer who was meant has another rule or none.
func Load(path string, signers *message.Signers) (*Policy, error) {
	p := &Policy{path: path, signers: signers}
	p.reload()
	if p.err != nil {
		return nil, p.err
	}
	return p, nil
}

// Err is why the file's present content is not in use; nil if it is. It also tells of a rule whose signer was withdrawn
// since: the worker would not start with it again.
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
	return p.join(p.rules.strangers(p.signers))
}

// join is all mistakes, each with the file.
func (p *Policy) join(mistakes []error) error {
	for i, m := range mistakes {
		mistakes[i] = fmt.Errorf("%s, %w", p.path, m)
	}
	return errors.Join(mistakes...)
}

// strangers are the rules that are about nobody who is trusted.
func (r ruleSet) strangers(signers *message.Signers) (mistakes []error) {
	if signers == nil {
		return nil
	}
	names := signers.Names()
	byLine := func(a, b string) int { return r.lines[a] - r.lines[b] }
	for _, name := range slices.SortedFunc(maps.Keys(r.lines), byLine) {
		if !signers.Knows(name) {
			mistakes = append(mistakes, fmt.Errorf("line %d: there is no trusted signer %s; there are %s", r.lines[name], shown(name), strings.Join(names, ", ")))
		}
	}
	return mistakes
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
	strangers := rules.strangers(p.signers)
	p.seen = message.StableInfo(info)
	if len(strangers) > 0 {
		p.seen = nil // they can become trusted while the file stays as it is
	}
	if p.err = p.join(append(mistakes, strangers...)); p.err == nil {
		p.rules = rules
	}
}

// Rule is the one for a signer: by nkey, else by name, else for all others; nil if there is none. who is what the rate is
// counted by: keys that go by one name share it.
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

// Forbids is why a signer may not ask that, "" if it may. It knows nothing of the rate and the lane.
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

// ForbidsLane is why a signer may not ask on that lane, "" if it may.
func (r *Rule) ForbidsLane(signer string, l message.Lane) string {
	if r == nil || r.lanes == nil || slices.Contains(r.lanes, l) {
		return ""
	}
	return fmt.Sprintf("the policy does not let signer %s use the lane %s, but %s", signer, l, message.LaneNames(r.lanes))
}

func isLetterOrDigit(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
