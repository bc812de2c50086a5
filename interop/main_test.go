package interop_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue/internal/pulse"
)

// parallel is how many tests run at once unless -parallel says otherwise: far
// more than there are processors, as the tests spend their time waiting.
func parallel() string { return strconv.Itoa(min(8, 4*runtime.GOMAXPROCS(0))) }

// lateBeats tells when this process could not run.
var lateBeats pulse.Record //nolint:gochecknoglobals // of the process

// update has the golden records written anew: go test -run Golden -update.
var update = flag.Bool("update", false, "write ../internal/wire/testdata/node-records.json") //nolint:gochecknoglobals // a flag

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		if err := runWorker(os.Getenv(workerEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", parallel()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	stop := pulse.Start(100*time.Millisecond, lateBeats.Add)
	code := m.Run()
	stop()
	os.Exit(code)
}
