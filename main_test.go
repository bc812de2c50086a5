package beequeue_test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobeequeue/beequeue/internal/leaktest"
	"github.com/gobeequeue/beequeue/internal/pulse"
)

// lateBeats tells when this process could not run.
var lateBeats pulse.Record

// TestMain runs the tests, stops the servers they started, and then looks for
// goroutines that were left behind.
func TestMain(m *testing.M) {
	flag.Parse()
	// They wait more than they compute: so more at once than there are processors.
	// Not so the fuzz targets.
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue && !fuzzing {
		_ = flag.Set("test.parallel", strconv.Itoa(min(8, 4*runtime.GOMAXPROCS(0)))) // which is a number
	}
	stop := pulse.Start(100*time.Millisecond, lateBeats.Add)
	code := m.Run()
	stop()
	for _, s := range servers {
		s.cleanup.run()
	}
	// rueidis leaves goroutines asleep for some seconds: when it looks at a cluster
	// anew, and when it found no server.
	os.Exit(leaktest.Check(code,
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient).redirectOrNew.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
	))
}
