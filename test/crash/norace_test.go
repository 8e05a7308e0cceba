//go:build !race

package crash_test

const raceFlag = "-race=false"
