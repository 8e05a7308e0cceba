//go:build race

package crash_test

// raceFlag builds the worker like the test.
const raceFlag = "-race"
