// Command chaos breaks what a queue stands on, and counts what becomes of the
// jobs: real processes, real servers, and a judge who reads what the processes
// wrote down and what is in Redis. docs/guarantees.md of the repository says what
// each scenario shows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

func main() {
	var o options
	flag.BoolVar(&o.bounded, "bounded", false, "fewer jobs and shorter faults, for CI")
	flag.StringVar(&o.only, "only", "", "only scenarios whose name matches this regular expression")
	flag.StringVar(&o.libraries, "libraries", ours, "the libraries to test, with commas: beequeue, bee-queue, asynq")
	flag.IntVar(&o.rounds, "rounds", 1, "how often to run everything")
	flag.DurationVar(&o.soak, "soak", 0, "instead of the scenarios, faults at random for so long")
	flag.StringVar(&o.out, "out", "", "also write a page with the table to this file")
	list := flag.Bool("list", false, "name the scenarios")
	flag.Parse()
	if *list {
		for _, sc := range scenarios() {
			fmt.Printf("%-24s %s\n", sc.name, sc.fault)
		}
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

type options struct {
	bounded         bool
	only, libraries string
	rounds          int
	soak            time.Duration
	out             string
}

// scenarios are all of them, in the order of the table.
func scenarios() []scenario {
	var all []scenario
	for _, some := range [][]scenario{
		workerScenarios, redisScenarios, networkScenarios, clusterScenarios, sentinelScenarios, producerScenarios, dataScenarios, startScenarios,
	} {
		all = append(all, some...)
	}
	return all
}

func run(ctx context.Context, o options) (err error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return errors.New("find the source: no caller")
	}
	into, err := os.MkdirTemp("", "beequeue-chaos-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(into)) }()
	all, err := libraries(ctx, filepath.Dir(file), into)
	if err != nil {
		return err
	}
	chosen, err := choose(all, o.libraries)
	if err != nil {
		return err
	}
	if o.soak > 0 {
		return soaks(ctx, chosen[0], o.soak, os.Stdout)
	}
	var out strings.Builder
	w := io.MultiWriter(os.Stdout, &out)
	header(w)
	began, rows := time.Now(), 0
	var bad []string
	for round := range o.rounds {
		for _, sc := range scenarios() {
			if !only.MatchString(sc.name) {
				continue
			}
			for _, l := range chosen {
				r := enact(ctx, l, sc, o.bounded)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				r.row(w)
				rows++
				if !r.ok() && l.name == ours {
					bad = append(bad, fmt.Sprintf("%s in round %d: %.600s", sc.name, round+1, r.why()))
				}
			}
		}
	}
	if rows == 0 {
		return fmt.Errorf("no scenario's name matches %q", o.only)
	}
	fmt.Fprintf(os.Stderr, "%d rows in %v\n", rows, time.Since(began).Round(time.Second))
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(page(out.String())), 0o644); err != nil { //nolint:gosec // to be read by all
			return err
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d rows of %s are not ok:\n%s", len(bad), ours, strings.Join(bad, "\n"))
	}
	return nil
}

// choose picks libraries by their names.
func choose(all []*library, names string) ([]*library, error) {
	var chosen []*library
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, l := range all {
			if l.name == strings.TrimSpace(name) {
				chosen, found = append(chosen, l), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no library %q", name)
		}
	}
	return chosen, nil
}
