package queuetest

import (
	"flag"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobeequeue/beequeue/internal/leaktest"
	"github.com/gobeequeue/beequeue/internal/pulse"
)

// atOnce is how many tests of a package run at once, unless -parallel says otherwise. Tests
// wait more than they compute, so a processor serves four of them. Because the go command
// runs as many packages side by side as there are processors, four a package keep to that.
const atOnce = 4

// lateBeats has the times when this process could not run.
var lateBeats pulse.Record

// Main is the TestMain of a package: it runs the tests, stops the servers they started,
// looks for goroutines that were left behind, and exits.
func Main(m *testing.M) {
	flag.Parse()
	// Fuzz targets compute all the time.
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue && !fuzzing {
		_ = flag.Set("test.parallel", strconv.Itoa(atOnce)) // a number always parses
	}
	stop := pulse.Start(100*time.Millisecond, lateBeats.Add)
	code := m.Run()
	stop()
	for _, s := range Servers {
		s.cleanup.run()
	}
	// rueidis leaves goroutines asleep for some seconds after it looked at a cluster anew,
	// and after it found no server.
	os.Exit(leaktest.Check(code,
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient).redirectOrNew.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
	))
}

// Excuses reports whether err is a call's missed deadline, and this process could not run
// for half a second or longer since the given time. Then the error is the machine's, and not the
// library's.
func Excuses(err error, since time.Time) bool { return lateBeats.Excuses(err, since) }
