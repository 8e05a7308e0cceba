package message

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestSchemasAreStrict: validators in their strict mode, such as ajv's, refuse a schema that asks for a member which the
// same schema does not name, a keyword that they don't know, and a member of several types but null. The schemas in
// AsyncAPI's document are held against the same rules.
func TestSchemasAreStrict(t *testing.T) {
	files, err := filepath.Glob("../../docs/schemas/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		strict(t, filepath.Base(file), readJSON(t, text))
	}
	var async map[string]any
	if err := yaml.Unmarshal(readDoc(t, "asyncapi.yaml"), &async); err != nil {
		t.Fatal(err)
	}
	schemas := 0
	inAsyncAPI(async, func(where string, schema any) {
		schemas++
		strict(t, "asyncapi.yaml"+where, schema)
	})
	if schemas < 3 {
		t.Errorf("found only %d schemas in asyncapi.yaml", schemas)
	}
}

// inAsyncAPI finds the payloads and headers, which are schemas.
func inAsyncAPI(node any, found func(where string, schema any)) {
	object, _ := node.(map[string]any)
	for name, below := range object {
		if name == "payload" || name == "headers" || name == "schemas" {
			found("/"+name, below)
			continue
		}
		inAsyncAPI(below, found)
	}
}

// The keywords of JSON Schema that stand in our schemas, by what is below them.
var (
	plainKeywords = []string{
		"$schema", "$id", "$ref", "title", "description", "type", "required", "const", "enum", "format", "pattern", "minLength", "maxLength",
		"minimum", "maximum", "minItems", "maxItems", "examples", "contentEncoding", "contentMediaType",
	}
	schemaKeywords = []string{"if", "then", "else", "not", "items", "additionalProperties"}
	listKeywords   = []string{"allOf", "anyOf", "oneOf"}
	mapKeywords    = []string{"properties", "$defs", "schemas"}
)

func strict(t *testing.T, where string, schema any) {
	t.Helper()
	s, isObject := schema.(map[string]any)
	if !isObject {
		if _, isBool := schema.(bool); !isBool {
			t.Errorf("%s is no schema: %v", where, schema)
		}
		return
	}
	if s["schemaFormat"] != nil { // AsyncAPI's wrapping of one
		strict(t, where+"/schema", s["schema"])
		return
	}
	named, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, r := range required {
		if _, is := named[r.(string)]; !is {
			t.Errorf("%s requires %s, which it does not name", where, r)
		}
	}
	if types, several := s["type"].([]any); several && (len(types) != 2 || !slices.Contains(types, any("null"))) {
		t.Errorf("%s has the types %v", where, types)
	}
	for keyword, below := range s {
		at := where + "/" + keyword
		switch {
		case slices.Contains(plainKeywords, keyword):
		case slices.Contains(schemaKeywords, keyword):
			strict(t, at, below)
		case slices.Contains(listKeywords, keyword):
			for i, one := range below.([]any) {
				strict(t, fmt.Sprint(at, "/", i), one)
			}
		case slices.Contains(mapKeywords, keyword):
			for name, one := range below.(map[string]any) {
				strict(t, at+"/"+name, one)
			}
		default:
			t.Errorf("%s: a keyword that is not known here", at)
		}
	}
}
