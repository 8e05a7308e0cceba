//go:build !race

package remediation

// Raced says whether the race detector is on, which makes a test of many steps slow.
const Raced = false
