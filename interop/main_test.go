package interop_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// parallel is how many tests run at once unless -parallel says otherwise: far
// more than there are processors, as the tests spend their time waiting.
const parallel = "8"

// update has the golden records written anew: go test -run Golden -update.
var update = flag.Bool("update", false, "write ../testdata/node-records.json") //nolint:gochecknoglobals // a flag

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
		if err := flag.Set("test.parallel", parallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
