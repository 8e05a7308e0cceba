// Package docs holds the machine-readable descriptions of the messages, for the
// program to print.
package docs

import "embed"

// Messages has the schemas of requests, results, orders and audit records, asyncapi.yaml and openapi.yaml.
//
//go:embed schemas asyncapi.yaml openapi.yaml
var Messages embed.FS
