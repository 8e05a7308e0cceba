package defendersim

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// property reads the next token as a property; nil: it is none, and the error is recorded.
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

// function parses startswith(name,'text') and its like, alone or followed by "eq true".
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

// compare builds a comparison. Strings are quoted, times and GUIDs are not; only in a list GUIDs may be ([live]).
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
	case is != of.kind && (!listed || of.kind != edmGUID || is != edmString):
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

// literalOf returns the type of a literal; "": it is none.
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

// parseTime reads a DateTimeOffset, or a day alone as in Microsoft's examples: 2018-08-01Z.
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
	return map[string]func(int) bool{
		"eq": func(c int) bool { return c == 0 }, "ne": func(c int) bool { return c != 0 },
		"gt": func(c int) bool { return c > 0 }, "ge": func(c int) bool { return c >= 0 },
		"lt": func(c int) bool { return c < 0 }, "le": func(c int) bool { return c <= 0 },
	}[operator]
}

func unquote(literal string) (text string, quoted bool) {
	if len(literal) < 2 || literal[0] != '\'' {
		return literal, false
	}
	return strings.ReplaceAll(literal[1:len(literal)-1], "''", "'"), true
}
