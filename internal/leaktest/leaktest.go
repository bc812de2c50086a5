// Package leaktest looks for goroutines that tests have left behind.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end after the tests. One that leaks
// never ends; one that is about to may take seconds on a busy machine, where goleak
// itself gives up after half a second.
const patience = 30 * time.Second

// Main runs the tests of a package, looks for goroutines that do not end, and exits.
func Main(m *testing.M, options ...goleak.Option) { os.Exit(Check(m.Run(), options...)) }

// Check takes the exit code of the tests, and gives that to exit with: another one
// if goroutines are left. It does not look after tests that failed.
func Check(code int, options ...goleak.Option) int {
	if code != 0 {
		return code
	}
	err := goleak.Find(options...)
	for began := time.Now(); err != nil && time.Since(began) < patience; {
		err = goleak.Find(options...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
