//go:build race

package remediation

const raced = true
