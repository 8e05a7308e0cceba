// Package docs holds the machine-readable descriptions of the messages, for the
// program to print.
package docs

import "embed"

// Messages has the schemas of requests, results and audit records, and asyncapi.yaml.
//
//go:embed schemas asyncapi.yaml
var Messages embed.FS
