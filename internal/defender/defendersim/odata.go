package defendersim

import (
	"slices"
	"strings"
	"time"
)

// maxNodes is the OData library's default for a $filter (MaxNodeCount), and
// maxDepth its limit on nesting. Every property, constant and operator is a
// node, each value of an `in` too.
const maxNodes, maxDepth = 100, 100

// predicate is a $filter made ready.
type predicate func(*action, time.Time) bool

// property reads a filterable string field by its name, in any case; nil:
// there is none. creationDateTimeUtc is a time and not among them.
func property(name string) func(*action, time.Time) string {
	switch strings.ToLower(name) {
	case "id":
		return func(a *action, _ time.Time) string { return a.id }
	case "type":
		return func(a *action, _ time.Time) string { return a.kind }
	case "status":
		return (*action).status
	case "machineid":
		return func(a *action, _ time.Time) string { return a.machineID }
	case "requestor":
		return func(a *action, _ time.Time) string { return a.requestor }
	}
	return nil
}

func unknownProperty(name string) error {
	return badQuery("Could not find a property named '%s' on type 'microsoft.windowsDefenderATP.api.MachineAction'.", name)
}

// filterParser descends over the tokens: or, and, not, then comparisons. The
// first error stays.
type filterParser struct {
	text   string
	tokens []string
	nodes  int
	err    error
}

func parseFilter(text string) (predicate, error) {
	p := &filterParser{text: text}
	p.scan()
	result := p.or(0)
	if p.err == nil && len(p.tokens) > 0 {
		p.syntax(p.tokens[0])
	}
	return result, p.err
}

func (p *filterParser) fail(format string, args ...any) predicate {
	if p.err == nil {
		p.err = badQuery(format, args...)
	}
	p.tokens = nil
	return func(*action, time.Time) bool { return false }
}

func (p *filterParser) syntax(at string) predicate {
	return p.fail("Syntax error at '%s' in '%s'.", at, p.text)
}

// scan cuts the text into tokens: parentheses, commas, quoted strings with
// their quotes (a quote inside is doubled), and words.
func (p *filterParser) scan() {
	for s := p.text; s != ""; {
		n := 1
		switch s[0] {
		case ' ', '\t':
			s = s[1:]
			continue
		case '(', ')', ',':
		case '\'':
			for n < len(s) && (s[n] != '\'' || n+1 < len(s) && s[n+1] == '\'') {
				if s[n] == '\'' {
					n++
				}
				n++
			}
			if n++; n > len(s) {
				p.fail("There is an unterminated string literal in '%s'.", p.text)
				return
			}
		default:
			if n = strings.IndexAny(s, " \t(),'"); n < 0 {
				n = len(s)
			}
		}
		p.tokens = append(p.tokens, s[:n])
		s = s[n:]
	}
}

func (p *filterParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

// take consumes the next token if it is this word, in any case.
func (p *filterParser) take(word string) bool {
	if len(p.tokens) == 0 || !strings.EqualFold(p.tokens[0], word) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *filterParser) count(nodes int) {
	if p.nodes += nodes; p.nodes > maxNodes {
		p.fail("The node count limit of '%d' has been exceeded. To increase the limit, set the 'MaxNodeCount' property "+
			"on EnableQueryAttribute or ODataValidationSettings.", maxNodes)
	}
}

func (p *filterParser) or(depth int) predicate {
	left := p.and(depth)
	for p.take("or") {
		p.count(1)
		l, r := left, p.and(depth)
		left = func(a *action, now time.Time) bool { return l(a, now) || r(a, now) }
	}
	return left
}

func (p *filterParser) and(depth int) predicate {
	left := p.unary(depth)
	for p.take("and") {
		p.count(1)
		l, r := left, p.unary(depth)
		left = func(a *action, now time.Time) bool { return l(a, now) && r(a, now) }
	}
	return left
}

func (p *filterParser) unary(depth int) predicate {
	if depth > maxDepth {
		return p.fail("The recursion limit of '%d' has been exceeded.", maxDepth)
	}
	switch {
	case p.take("not"):
		p.count(1)
		inner := p.unary(depth + 1)
		return func(a *action, now time.Time) bool { return !inner(a, now) }
	case p.take("("):
		inner := p.or(depth + 1)
		if !p.take(")") {
			return p.fail("')' or operator expected in '%s'.", p.text)
		}
		return inner
	}
	return p.comparison()
}

func (p *filterParser) comparison() predicate {
	field := p.next()
	value := property(field)
	if value == nil && !strings.EqualFold(field, "creationDateTimeUtc") {
		if field == "" || strings.ContainsAny(field[:1], "(),'") {
			return p.syntax(field)
		}
		return p.fail("%s", unknownProperty(field))
	}
	operator := strings.ToLower(p.next())
	p.count(2)
	if operator != "in" {
		p.count(1)
		literal := p.next()
		if _, quoted := unquote(literal); quoted && strings.EqualFold(field, "id") { // the key is Edm.Guid, and only in takes quotes ([live])
			return p.fail("A binary operator with incompatible types was detected. Found operand types 'Edm.Guid' and 'Edm.String' for operator kind '%s'.", operator)
		}
		return p.compare(field, value, operator, literal)
	}
	if !p.take("(") {
		return p.syntax(p.next())
	}
	var one []predicate
	for {
		p.count(1)
		one = append(one, p.compare(field, value, "eq", p.next()))
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return p.syntax(p.next())
		}
	}
	return func(a *action, now time.Time) bool {
		return slices.ContainsFunc(one, func(each predicate) bool { return each(a, now) })
	}
}

func (p *filterParser) compare(field string, value func(*action, time.Time) string, operator, literal string) predicate {
	holds := holds(operator)
	if holds == nil {
		return p.syntax(operator)
	}
	text, quoted := unquote(literal)
	if value != nil {
		if strings.EqualFold(field, "id") {
			text, quoted = strings.ToLower(text), quoted || strings.Count(literal, "-") == 4 // a GUID may stand bare
		}
		if !quoted {
			return p.fail("A binary operator with incompatible types was detected: '%s' and '%s'.", field, literal)
		}
		return func(a *action, now time.Time) bool { return holds(strings.Compare(value(a, now), text)) }
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return p.fail("A binary operator with incompatible types was detected: '%s' and '%s'.", field, literal)
	}
	return func(a *action, _ time.Time) bool { return holds(a.created.Compare(at)) }
}

// holds turns an operator into a test of what a comparison returned; nil: unknown.
func holds(operator string) func(int) bool {
	switch operator {
	case "eq":
		return func(c int) bool { return c == 0 }
	case "ne":
		return func(c int) bool { return c != 0 }
	case "gt":
		return func(c int) bool { return c > 0 }
	case "ge":
		return func(c int) bool { return c >= 0 }
	case "lt":
		return func(c int) bool { return c < 0 }
	case "le":
		return func(c int) bool { return c <= 0 }
	}
	return nil
}

func unquote(literal string) (text string, quoted bool) {
	if len(literal) < 2 || literal[0] != '\'' {
		return literal, false
	}
	return strings.ReplaceAll(literal[1:len(literal)-1], "''", "'"), true
}
