package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

// Approvals are what a signer's requests await before their call: Required approvals of those named in By, within a time.
type Approvals struct {
	Required int
	By       []string // signers' names, each once
	Within   time.Duration

	line  int            // of the key
	lines map[string]int // the line of each name
}

const (
	maxApprovals = 5 // an audit record must fit what each of them signed
	maxApprovers = 50
	maxWithin    = message.MaxSignFor
)

// Approver reports whether any rule names a signer as an approver.
func (p *Policy) Approver(name string) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload()
	for _, rule := range p.rules.all() {
		if rule.Approvals != nil && slices.Contains(rule.Approvals.By, name) {
			return true
		}
	}
	return false
}

// all returns the rules in the order of the file's signers, the default rule last.
func (r ruleSet) all() (all []*Rule) {
	for _, name := range slices.SortedFunc(maps.Keys(r.signers), func(a, b string) int { return cmp.Compare(r.lines[a], r.lines[b]) }) {
		all = append(all, r.signers[name])
	}
	if r.others != nil {
		all = append(all, r.others)
	}
	return all
}

// approversMissing returns a mistake for each rule whose approvals can never be given: it names an approver who is not
// trusted, or too few besides the signer.
func (r ruleSet) approversMissing(signers *message.Signers) (mistakes []error) {
	names := signers.Names()
	for _, rule := range r.all() {
		if rule.Approvals == nil {
			continue
		}
		for _, name := range rule.Approvals.By {
			if !slices.Contains(names, name) {
				mistakes = append(mistakes, noSigner(rule.Approvals.lines[name], name, names))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.signers)) {
		own, a := cmp.Or(signers.NameOf(key), key), r.signers[key].Approvals
		if a != nil && slices.Contains(a.By, own) && a.Required > len(a.By)-1 {
			mistakes = append(mistakes, fmt.Errorf("line %d: approvals: required is %d, and by names %d besides %s, who can't approve his own; name more, or require less", a.line, a.Required, len(a.By)-1, printable(own)))
		}
	}
	return mistakes
}

// approvals reads the approvals of one rule.
func (f *policyFile) approvals(at *token.Token, node ast.Node) *Approvals {
	a := &Approvals{line: at.Position.Line, lines: map[string]int{}}
	mistakes, given := len(f.mistakes), map[string]bool{}
	for _, pair := range f.pairs(at, node) {
		key := pair.Key.GetToken()
		value, plain := yamlText(pair.Value)
		given[key.Value] = true
		var err error
		switch key.Value {
		case "required":
			if a.Required, err = strconv.Atoi(value); err != nil || !plain || a.Required < 1 || a.Required > maxApprovals {
				f.mistake(key, "approvals: required must be a whole number from 1 to %d", maxApprovals)
			}
		case "by":
			f.approvers(a, key, pair.Value)
		case "within":
			if a.Within, err = time.ParseDuration(value); err != nil || !plain || a.Within <= 0 || a.Within > maxWithin {
				f.mistake(key, "approvals: within must be a duration above 0 and of %s at most, such as 4h", maxWithin)
			}
		default:
			f.mistake(key, "approvals: unknown key %s; there are required, by and within", printable(key.Value))
		}
	}
	for _, name := range []string{"required", "by", "within"} {
		if !given[name] && len(f.mistakes) == mistakes {
			f.mistake(at, "approvals: %s is missing; give required, by and within", name)
		}
	}
	if len(f.mistakes) == mistakes && a.Required > len(a.By) {
		f.mistake(at, "approvals: required is %d, and by names %d; name more, or require less", a.Required, len(a.By))
	}
	return a
}

func (f *policyFile) approvers(a *Approvals, at *token.Token, node ast.Node) {
	list, ok := node.(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 || len(list.Values) > maxApprovers {
		f.mistake(at, "approvals: by must be a list of signers' names, of %d at most", maxApprovers)
		return
	}
	for _, item := range list.Values {
		name, plain := yamlText(item)
		switch at := item.GetToken(); {
		case nkeys.Prefix(name) == nkeys.PrefixByteSeed:
			f.mistake(at, "approvals: by has a seed, which is secret; give the signer's name, and make a new pair, for this one was shown")
		case !plain || strings.TrimSpace(name) == "":
			f.mistake(at, "approvals: by must be a list of signers' names")
		case slices.Contains(a.By, name):
			f.mistake(at, "approvals: by names %s twice; a person counts once", printable(name))
		default:
			a.By = append(a.By, name)
			a.lines[name] = at.Position.Line
		}
	}
}
