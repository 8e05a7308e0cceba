//go:build race

// Package raced reports whether the race detector is on, which makes a test of many steps slow. Such a test takes fewer of them
// then; make test runs it once more without the detector, in full.
package raced

// On is whether it is on.
const On = true
