// Package docs holds the machine-readable descriptions of the messages, for the
// program to print.
package docs

import "embed"

// Messages has schemas/request.json, schemas/result.json and asyncapi.yaml.
//
//go:embed schemas/request.json schemas/result.json asyncapi.yaml
var Messages embed.FS
