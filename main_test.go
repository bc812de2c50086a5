package beequeue_test

import (
	"flag"
	"os"
	"testing"

	"github.com/gobeequeue/beequeue/internal/leaktest"
)

// TestMain runs the tests, stops the servers they started, and then looks for
// goroutines that were left behind.
func TestMain(m *testing.M) {
	flag.Parse()
	// They wait more than they compute: so more at once than there are processors.
	// Not so the fuzz targets.
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue && !fuzzing {
		_ = flag.Set("test.parallel", "8") // which is a number
	}
	code := m.Run()
	for _, s := range servers {
		s.cleanup.run()
	}
	os.Exit(leaktest.Check(code))
}
