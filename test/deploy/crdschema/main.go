// Command crdschema makes JSON Schemas, strict and named as kubeconform looks for them, of CustomResourceDefinitions:
//
//	crdschema FOLDER CRD.yaml...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: crdschema FOLDER CRD.yaml...")
		os.Exit(2)
	}
	for _, path := range os.Args[2:] {
		if err := convert(os.Args[1], path); err != nil {
			fmt.Fprintf(os.Stderr, "crdschema: %s: %v\n", path, err)
			os.Exit(1)
		}
	}
}

// definition is what of a CustomResourceDefinition matters here.
type definition struct {
	Kind string
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Schema struct {
				OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
			}
		}
	}
}

func convert(folder, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var crd definition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return err
	}
	if crd.Kind != "CustomResourceDefinition" || len(crd.Spec.Versions) == 0 {
		return errors.New("no CustomResourceDefinition")
	}
	group, _, _ := strings.Cut(crd.Spec.Group, ".")
	for _, version := range crd.Spec.Versions {
		schema := version.Schema.OpenAPIV3Schema
		strict(schema)
		out, err := json.Marshal(schema)
		if err != nil {
			return err
		}
		name := strings.ToLower(fmt.Sprintf("%s-%s-%s.json", crd.Spec.Names.Kind, group, version.Name))
		if err := os.WriteFile(filepath.Join(folder, name), out, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// strict lets objects have only what they declare, as the API server does with --validate=strict, but for those that say
// that they keep the rest, and for metadata, which a CRD leaves to Kubernetes.
func strict(node any) {
	switch node := node.(type) {
	case map[string]any:
		if node["x-kubernetes-int-or-string"] == true {
			delete(node, "type")
		}
		_, declares := node["properties"]
		_, decided := node["additionalProperties"]
		if declares && !decided && node["x-kubernetes-preserve-unknown-fields"] != true {
			node["additionalProperties"] = false
		}
		for _, below := range node {
			strict(below)
		}
	case []any:
		for _, below := range node {
			strict(below)
		}
	}
}
