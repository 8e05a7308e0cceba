package defendersim

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxNodes is the OData library's default for a $filter (MaxNodeCount), and
// maxDepth its limit on nesting. Every property, constant and operator is a
// node, each value of an `in` too.
const maxNodes, maxDepth = 100, 100

// predicate is a $filter made ready.
type predicate[T any] func(T, time.Time) bool

// filterParser descends over the tokens: or, and, not, then comparisons and functions. The first error stays.
type filterParser[T any] struct {
	schema *schema[T]
	text   string
	tokens []string
	nodes  int
	err    error
}

func (s *schema[T]) parseFilter(text string) (predicate[T], error) {
	p := &filterParser[T]{schema: s, text: text}
	p.scan()
	result := p.or(0)
	if p.err == nil && len(p.tokens) > 0 {
		p.syntax(p.tokens[0])
	}
	return result, p.err
}

func (p *filterParser[T]) fail(err error) predicate[T] {
	if p.err == nil {
		p.err = err
	}
	p.tokens = nil
	return func(T, time.Time) bool { return false }
}

func (p *filterParser[T]) syntax(at string) predicate[T] {
	return p.fail(badQuery("Syntax error at '%s' in '%s'.", at, p.text))
}

// mismatch is the library's text for two types that have no operator in common.
func (p *filterParser[T]) mismatch(left, right edm, operator string) predicate[T] {
	return p.fail(badQuery("A binary operator with incompatible types was detected. Found operand types '%s' and '%s' for operator kind '%s'.",
		left, right, map[string]string{
			"eq": "Equal", "ne": "NotEqual", "gt": "GreaterThan", "ge": "GreaterThanOrEqual", "lt": "LessThan", "le": "LessThanOrEqual",
		}[operator]))
}

// scan cuts the text into tokens: parentheses, commas, quoted strings with
// their quotes (a quote inside is doubled), and words.
func (p *filterParser[T]) scan() {
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
				p.fail(badQuery("There is an unterminated string literal in '%s'.", p.text))
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

func (p *filterParser[T]) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

// take consumes the next token if it is this word, in any case.
func (p *filterParser[T]) take(word string) bool {
	if len(p.tokens) == 0 || !strings.EqualFold(p.tokens[0], word) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *filterParser[T]) count(nodes int) {
	if p.nodes += nodes; p.nodes > maxNodes {
		p.fail(badQuery("The node count limit of '%d' has been exceeded. To increase the limit, set the 'MaxNodeCount' property "+
			"on EnableQueryAttribute or ODataValidationSettings.", maxNodes))
	}
}

func (p *filterParser[T]) or(depth int) predicate[T] {
	left := p.and(depth)
	for p.take("or") {
		p.count(1)
		l, r := left, p.and(depth)
		left = func(e T, now time.Time) bool { return l(e, now) || r(e, now) }
	}
	return left
}

func (p *filterParser[T]) and(depth int) predicate[T] {
	left := p.unary(depth)
	for p.take("and") {
		p.count(1)
		l, r := left, p.unary(depth)
		left = func(e T, now time.Time) bool { return l(e, now) && r(e, now) }
	}
	return left
}

func (p *filterParser[T]) unary(depth int) predicate[T] {
	if depth > maxDepth {
		return p.fail(badQuery("The recursion limit of '%d' has been exceeded.", maxDepth))
	}
	switch {
	case p.take("not"):
		p.count(1)
		inner := p.unary(depth + 1)
		return func(e T, now time.Time) bool { return !inner(e, now) }
	case p.take("("):
		inner := p.or(depth + 1)
		if !p.take(")") {
			return p.fail(badQuery("')' or operator expected in '%s'.", p.text))
		}
		return inner
	case len(p.tokens) > 1 && p.tokens[1] == "(":
		return p.function()
	}
	return p.comparison()
}

// property takes the next token for one; nil: it is none, and that is said.
func (p *filterParser[T]) property() *property[T] {
	name := p.next()
	found := p.schema.find(name)
	switch {
	case found != nil:
	case name == "" || strings.ContainsAny(name[:1], "(),'"):
		p.syntax(name)
	default:
		p.fail(p.schema.unknown(name))
	}
	return found
}

// function is startswith(name,'text') and its like, alone or with "eq true" behind it.
func (p *filterParser[T]) function() predicate[T] {
	name := p.next()
	test, known := map[string]func(string, string) bool{
		"startswith": strings.HasPrefix, "endswith": strings.HasSuffix, "contains": strings.Contains,
	}[strings.ToLower(name)]
	if !known {
		return p.fail(badQuery("An unknown function with name '%s' was found. This may also be a function import or a key lookup on a navigation property, which is not allowed.", name))
	}
	p.count(3)
	p.next()
	of := p.property()
	if of == nil {
		return p.syntax(name)
	}
	comma := p.take(",")
	text, quoted := unquote(p.next())
	if !comma || !quoted || of.kind != edmString || !p.take(")") {
		return p.fail(badQuery("No function signature for the function with name '%s' matches the specified arguments.", name))
	}
	if p.take("eq") && !p.take("true") {
		return p.syntax(p.next())
	}
	return func(e T, now time.Time) bool { return test(of.text(e, now), text) }
}

func (p *filterParser[T]) comparison() predicate[T] {
	of := p.property()
	if of == nil {
		return p.syntax("")
	}
	operator := strings.ToLower(p.next())
	p.count(2)
	if operator != "in" {
		p.count(1)
		return p.compare(of, operator, p.next(), false)
	}
	if !p.take("(") {
		return p.syntax(p.next())
	}
	var one []predicate[T]
	for {
		p.count(1)
		one = append(one, p.compare(of, "eq", p.next(), true))
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return p.syntax(p.next())
		}
	}
	return func(e T, now time.Time) bool {
		return slices.ContainsFunc(one, func(each predicate[T]) bool { return each(e, now) })
	}
}

// compare: strings stand in quotes, times and GUIDs without; only in a list do GUIDs take them ([live]).
func (p *filterParser[T]) compare(of *property[T], operator, literal string, listed bool) predicate[T] {
	holds := holds(operator)
	if holds == nil {
		return p.syntax(operator)
	}
	text, is := literalOf(literal)
	switch {
	case literal == "" || strings.ContainsAny(literal[:1], "(),"):
		return p.syntax(literal)
	case is == "":
		return p.fail(p.schema.unknown(literal)) // a bare word would be another property
	case is != of.kind && !(listed && of.kind == edmGUID && is == edmString):
		return p.mismatch(of.kind, is, operator)
	case is == edmTime:
		at, _ := parseTime(text)
		return func(e T, _ time.Time) bool { return holds(of.at(e).Compare(at)) }
	case of.kind == edmGUID:
		text = strings.ToLower(text)
	}
	return func(e T, now time.Time) bool { return holds(strings.Compare(of.text(e, now), text)) }
}

var number = regexp.MustCompile(`^-?[0-9]+$`)

// literalOf tells the type of a literal; "": it is none.
func literalOf(literal string) (text string, is edm) {
	text, quoted := unquote(literal)
	_, isTime := parseTime(text)
	switch {
	case quoted:
		return text, edmString
	case guid.MatchString(strings.ToLower(text)):
		return text, edmGUID
	case isTime:
		return text, edmTime
	case number.MatchString(text):
		return text, "Edm.Int32"
	}
	return text, ""
}

// parseTime reads a DateTimeOffset, also one of a day alone, which Microsoft's examples have: 2018-08-01Z.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02Z07:00"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
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
