package clients

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/message"
)

// entries returns the clients of a file as YAML nodes. It checks all keys of the file on the way.
func (m *mistakes) entries(text []byte) (all []ast.Node) {
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		m.add(lineIn(err), "not YAML: %s", messageOf(err))
		return nil
	}
	for _, doc := range parsed.Docs {
		m.misspelt(doc.Body, reflect.TypeFor[struct {
			Clients []entry `yaml:"clients"`
		}]())
		for _, pair := range pairs(doc.Body) {
			switch list, ok := pair.Value.(*ast.SequenceNode); {
			case pair.Key.GetToken().Value != "clients":
			case ok:
				all = append(all, list.Values...)
			default:
				m.add(pair.Key.GetToken().Position.Line, "clients: give a list, each client after a hyphen")
			}
		}
	}
	return all
}

// misspelt records unknown keys, of node and of everything below it.
func (m *mistakes) misspelt(node ast.Node, of reflect.Type) {
	switch of.Kind() {
	case reflect.Pointer:
		m.misspelt(node, of.Elem())
	case reflect.Slice:
		if list, ok := node.(*ast.SequenceNode); ok {
			for _, value := range list.Values {
				m.misspelt(value, of.Elem())
			}
		}
	case reflect.Struct:
		keys, types := fieldsOf(of)
		for _, pair := range pairs(node) {
			key := pair.Key.GetToken()
			if i := slices.Index(keys, key.Value); i >= 0 {
				m.misspelt(pair.Value, types[i])
			} else if _, merges := pair.Key.(*ast.MergeKeyNode); !merges {
				m.add(key.Position.Line, "unknown key %s; there are %s", shown(key.Value), strings.Join(keys, ", "))
			}
		}
	}
}

func fieldsOf(of reflect.Type) (keys []string, types []reflect.Type) {
	for f := range of.Fields() {
		keys, types = append(keys, f.Tag.Get("yaml")), append(types, f.Type)
	}
	return keys, types
}

// decode reads one client, and records what is wrong.
func (m *mistakes) decode(decoder *yaml.Decoder, node ast.Node, e *entry) bool {
	err := decoder.DecodeFromNode(node, e)
	if err == nil {
		return true
	}
	at := lineIn(err)
	if at == 0 {
		at = node.GetToken().Position.Line
	}
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	switch {
	case !ok:
		m.add(at, "%s", messageOf(err))
	case wrong.DstType.Kind() == reflect.Int:
		m.add(at, "give a whole number")
	case wrong.DstType.Kind() == reflect.Bool:
		m.add(at, "give true or false")
	case wrong.DstType.Kind() == reflect.Slice:
		m.add(at, "give a list, such as [a, b]")
	case wrong.DstType.Kind() == reflect.String:
		m.add(at, "give a text")
	default:
		m.add(at, "give lines of the form key: value, further in than the line itself")
	}
	return false
}

// lineOf is the line of a mistake whose text begins with the keys that lead to it, such as "oidc: issuer: ...".
func lineOf(node ast.Node, mistake string) int {
	line := node.GetToken().Position.Line
	if all := pairs(node); len(all) > 0 {
		line = all[0].Key.GetToken().Position.Line
	}
	for {
		key, rest, _ := strings.Cut(mistake, ": ")
		at := slices.IndexFunc(pairs(node), func(p *ast.MappingValueNode) bool { return p.Key.GetToken().Value == key })
		if at < 0 {
			return line
		}
		pair := pairs(node)[at]
		line, node, mistake = pair.Key.GetToken().Position.Line, pair.Value, rest
	}
}

// pairs are the keys of a mapping with their values.
func pairs(node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	case *ast.AnchorNode:
		return pairs(n.Value)
	}
	return nil
}

func lineIn(err error) int {
	if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
		return at.GetToken().Position.Line
	}
	return 0
}

func messageOf(err error) string {
	if yamlErr, ok := errors.AsType[yaml.Error](err); ok {
		return yamlErr.GetMessage()
	}
	return "it can't be read"
}

// shown is a key as a message may show it.
func shown(key string) string {
	if nkeys.Prefix(key) == nkeys.PrefixByteSeed {
		return "(a seed)"
	}
	return message.OneLine(key, 40)
}
