package beequeue_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
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
	if code == 0 {
		// rueidis leaves goroutines asleep for some seconds: when it looks at a
		// cluster anew, and when it found no server.
		err := goleak.Find(
			goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
			goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
		)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
