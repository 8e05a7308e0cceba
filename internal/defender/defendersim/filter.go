package defendersim

import (
	"strings"
	"time"
)

// maxNodes is the OData library's default for a $filter (MaxNodeCount), and maxDepth its limit on nesting. Every
// property, constant and operator is a node, and so is each value of an `in`.
const maxNodes, maxDepth = 100, 100

// predicate is a compiled $filter.
type predicate[T any] func(T, time.Time) bool

// filterParser is a recursive-descent parser: or, and, not, then comparisons and functions. It keeps the first error.
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
