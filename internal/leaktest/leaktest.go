// Package leaktest looks for goroutines that tests have left behind.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end after the tests. goleak gives up after
// half a second, in which a busy machine may not run them. What leaks only for a while
// waits for a timeout of the library, of which the shorter ones are 5 s and 10 s.
const patience = 4 * time.Second

// Main runs the tests of a package, looks for goroutines that do not end, and exits.
func Main(m *testing.M) { os.Exit(Check(m.Run())) }

// Check takes the exit code of the tests, and gives that to exit with: another one
// if goroutines are left. It does not look after tests that failed.
func Check(code int, options ...goleak.Option) int {
	if code != 0 {
		return code
	}
	if err := find(options...); err != nil {
		fmt.Fprintf(os.Stderr, "after %v: %v\n", patience, err)
		return 1
	}
	return 0
}

func find(options ...goleak.Option) error {
	began := time.Now()
	for {
		err := goleak.Find(options...)
		if err == nil || time.Since(began) >= patience {
			return err
		}
	}
}
