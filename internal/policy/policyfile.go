package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

// maxPerHour is the most machines an hour that a policy can allow: the API itself takes no more calls ([doc]
// unrestrict-code-execution.md), and the record of one signer stays small.
const maxPerHour = 1500

// policyFile is a policy file being read. Each of its mistakes begins with the line.
type policyFile struct{ mistakes []error }

func (f *policyFile) mistake(at *token.Token, format string, args ...any) {
	f.mistakes = append(f.mistakes, fmt.Errorf("line %d: "+format, append([]any{at.Position.Line}, args...)...))
}

// parsePolicy reads a policy, and returns all mistakes at once.
func parsePolicy(data []byte) (ruleSet, []error) {
	// Duplicate keys are found below, all of them and not only the first.
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if syntax, ok := errors.AsType[yaml.Error](err); ok && syntax.GetToken() != nil {
		return ruleSet{}, []error{fmt.Errorf("line %d: not YAML: %s", syntax.GetToken().Position.Line, syntax.GetMessage())}
	} else if err != nil {
		return ruleSet{}, []error{errors.New("line 1: not YAML")}
	}
	f, rules := &policyFile{}, ruleSet{signers: map[string]*Rule{}, lines: map[string]int{}}
	for _, pair := range f.document(file) {
		switch at := pair.Key.GetToken(); at.Value {
		case "default":
			rules.others = f.rule(at, pair.Value)
		case "signers":
			for _, signer := range f.pairs(at, pair.Value) {
				at := signer.Key.GetToken()
				if name, ok := f.signer(at); ok {
					rules.lines[name] = at.Position.Line
				}
				rules.signers[at.Value] = f.rule(at, signer.Value)
			}
		default:
			f.mistake(at, "unknown key %s; there are signers and default", message.OneLine(at.Value, 40))
		}
	}
	if len(f.mistakes) == 0 && len(rules.signers) == 0 && rules.others == nil {
		return ruleSet{}, []error{errors.New("line 1: nobody may ask anything; give signers or default")}
	}
	return rules, f.mistakes
}

// document returns the entries of the file's only document, which must be a mapping.
func (f *policyFile) document(file *ast.File) (all []*ast.MappingValueNode) {
	documents := 0
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode:
			continue
		}
		if documents++; documents > 1 {
			f.mistake(doc.Body.GetToken(), "a second document; there may be only one")
			continue
		}
		all = f.pairs(doc.Body.GetToken(), doc.Body)
	}
	return all
}

// pairs returns the entries of a mapping, each key once.
func (f *policyFile) pairs(at *token.Token, node ast.Node) []*ast.MappingValueNode {
	var all []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		all = n.Values
	case *ast.MappingValueNode:
		all = []*ast.MappingValueNode{n}
	default:
		f.mistake(at, "expected lines of the form key: value, further in than the line itself")
		return nil
	}
	first, good := map[string]int{}, make([]*ast.MappingValueNode, 0, len(all))
	for _, pair := range all {
		key := pair.Key.GetToken()
		if _, plain := yamlText(pair.Key); !plain {
			f.mistake(key, "a key must be plain text")
		} else if line, twice := first[key.Value]; twice {
			f.mistake(key, "%s is there twice, first in line %d", printable(key.Value), line)
		} else {
			first[key.Value] = key.Position.Line
			good = append(good, pair)
		}
	}
	return good
}

// signer checks a key below signers. A seed put there by mistake is never shown.
func (f *policyFile) signer(at *token.Token) (name string, ok bool) {
	switch {
	case nkeys.Prefix(at.Value) == nkeys.PrefixByteSeed:
		f.mistake(at, "is a seed, which is secret; give the signer's name or public nkey, and make a new pair, for this one was shown")
	case strings.TrimSpace(at.Value) == "":
		f.mistake(at, "a signer without a name; give a name or a public nkey")
	default:
		return at.Value, true
	}
	return "", false
}

func (f *policyFile) rule(at *token.Token, node ast.Node) *Rule {
	r := &Rule{}
	for _, pair := range f.pairs(at, node) {
		key := pair.Key.GetToken()
		value, plain := yamlText(pair.Value)
		switch key.Value {
		case "comment":
			var err error
			if r.comment, err = regexp.Compile(value); err != nil || !plain || value == "" {
				f.mistake(key, "comment must be a regular expression (RE2 syntax), such as '^INC-[0-9]+ '")
			}
		case "ticket_required":
			var err error
			if r.ticket, err = strconv.ParseBool(value); err != nil || !plain {
				f.mistake(key, "ticket_required must be true or false")
			}
		case "machines_per_hour":
			r.PerHour = f.perHour(key, value, plain)
		case "urgent_per_hour":
			r.Urgent = f.perHour(key, value, plain)
		case "lanes":
			r.lanes = f.lanes(key, pair.Value)
		case "machines":
			r.machines = f.machines(key, pair.Value)
		case "operate":
			var err error
			if r.Operate, err = strconv.ParseBool(value); err != nil || !plain {
				f.mistake(key, "operate must be true or false")
			}
		case "approvals":
			r.Approvals = f.approvals(key, pair.Value)
		default:
			f.mistake(key, "unknown key %s; there are comment, ticket_required, machines, machines_per_hour, lanes, urgent_per_hour, operate and approvals", printable(key.Value))
		}
	}
	return r
}

func (f *policyFile) perHour(at *token.Token, value string, plain bool) int {
	n, err := strconv.Atoi(value)
	if err != nil || !plain || n < 1 || n > maxPerHour {
		f.mistake(at, "%s must be a whole number from 1 to %d; leave it out for no limit", at.Value, maxPerHour)
	}
	return n
}

func (f *policyFile) lanes(at *token.Token, node ast.Node) (all []message.Lane) {
	list, ok := node.(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 {
		f.mistake(at, "lanes must be a list of %s; leave it out for all of them", message.LaneNames(message.Lanes()))
		return nil
	}
	for _, item := range list.Values {
		written, _ := yamlText(item)
		l, err := message.ParseLane(written)
		if err != nil {
			f.mistake(item.GetToken(), "lanes: %w", err)
		}
		all = append(all, l)
	}
	return all
}

func (f *policyFile) machines(at *token.Token, node ast.Node) map[string]bool {
	list, ok := node.(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 {
		f.mistake(at, "machines must be a list of machine ids; leave it out for all machines")
		return nil
	}
	ids := map[string]bool{}
	for _, item := range list.Values {
		written, _ := yamlText(item)
		id, err := message.MachineID(written)
		if err != nil {
			f.mistake(item.GetToken(), "a machine id %w", err)
		}
		ids[id] = true
	}
	return ids
}

// yamlText returns a scalar as it is written, including numbers: a machine id may look like one. Anchors, aliases and tags
// don't count as text.
func yamlText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// printable returns a key in the form that error messages may show.
func printable(key string) string {
	if nkeys.Prefix(key) == nkeys.PrefixByteSeed {
		return "(a seed)"
	}
	return message.OneLine(key, 80)
}
