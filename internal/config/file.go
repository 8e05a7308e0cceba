package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// fileValue is the value of one key in a --config file.
type fileValue struct {
	text string
	line int
}

// readConfigFile reads a flat YAML mapping of settings. Even with mistakes it returns what it could read, and every
// mistake with its line. No mistake shows a value, which may be a secret.
func readConfigFile(path string, known []string) (map[string]fileValue, []Mistake) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, []Mistake{{Text: fmt.Sprintf("--config %s: %v", path, errors.Unwrap(err))}}
	}
	values, mistakes := parseConfig(data, known)
	for i, m := range mistakes {
		mistakes[i].Text = fmt.Sprintf("--config %s, %s", path, m.Text)
	}
	return values, mistakes
}

// parseConfig is readConfigFile without the file; its mistakes begin with the line.
func parseConfig(data []byte, known []string) (map[string]fileValue, []Mistake) {
	var mistakes []Mistake
	mistake := func(at *token.Token, format string, args ...any) {
		mistakes = append(mistakes, Mistake{Text: fmt.Sprintf("line %d: ", at.Position.Line) + fmt.Sprintf(format, args...)})
	}
	// Duplicate keys are found below, all of them and not only the first.
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if syntax, ok := errors.AsType[yaml.Error](err); ok {
		mistake(syntax.GetToken(), "not YAML: %s", syntax.GetMessage())
		return nil, mistakes
	} else if err != nil {
		return nil, []Mistake{{Text: "somewhere: not YAML"}}
	}
	values := map[string]fileValue{}
	for _, pair := range pairs(file, mistake) {
		at := pair.Key.GetToken()
		key := at.Value
		first, twice := values[key]
		text, ok := scalar(pair.Value)
		switch {
		case !slices.Contains(known, key):
			mistake(at, "unknown key %s%s", key, DidYouMean(key, known))
		case twice:
			mistake(at, "%s is there twice, first in line %d", key, first.line)
		case !ok:
			mistake(at, "%s must be a single value or a list of them", key)
		}
		values[key] = fileValue{text: text, line: at.Position.Line}
	}
	return values, mistakes
}

// pairs returns the entries of the one document's mapping; an empty file has none.
func pairs(file *ast.File, mistake func(*token.Token, string, ...any)) []*ast.MappingValueNode {
	var all []*ast.MappingValueNode
	documents := 0
	for _, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode:
			continue
		case *ast.MappingNode:
			all = append(all, body.Values...)
		case *ast.MappingValueNode:
			all = append(all, body)
		default:
			mistake(body.GetToken(), "expected lines of the form key: value")
		}
		if documents++; documents > 1 {
			mistake(doc.Body.GetToken(), "a second document; there may be only one")
		}
	}
	return all
}

// scalar returns the text of a value as it was written; "" for null, which is the same as leaving the key out. The
// values of a list are joined by commas.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.NullNode:
		return "", true
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.SequenceNode:
		var items []string
		for _, value := range n.Values {
			text, ok := scalar(value)
			if _, list := value.(*ast.SequenceNode); list || !ok {
				return "", false
			}
			items = append(items, text)
		}
		return strings.Join(items, ","), true
	case ast.ScalarNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// DidYouMean suggests the known word that a wrong one probably stands for; "": there is none.
func DidYouMean(wrong string, known []string) string {
	best, least := "", min(3, len(wrong))
	for _, word := range known {
		if d := editDistance(wrong, word); d < least {
			best, least = word, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance counts the insertions, deletions and replacements between a and b, and the swaps of neighbours (optimal
// string alignment).
func editDistance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1) // the rows of two and of one letter less of a
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
