// Command bench measures beequeue beside its peers; docs/performance.md of the
// repository explains the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue/internal/redistest"
)

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "the main workloads and peers only, in under 3 minutes")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds; the figures are medians")
	flag.Float64Var(&o.seconds, "seconds", 1, "about how long one measurement is to take; half of that with -quick")
	flag.StringVar(&o.only, "only", "", "only workloads whose name matches this regular expression")
	flag.StringVar(&o.peers, "peers", "", "only peers whose name matches this regular expression")
	out := flag.String("out", "", "write the samples to this file, as JSON")
	from := flag.String("from", "", "measure nothing: take the samples from this file")
	docs := flag.String("docs", "", "draw the charts into this folder, and renew the tables of its performance.md and of the README above it")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o, *from, *out, *docs)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, or takes the samples from a file, and tells the results. What was
// measured before a failure is not thrown away, but not published either.
func run(ctx context.Context, o options, from, out, docs string) error {
	results, err := obtain(ctx, from, o)
	if results == nil || len(results.Samples) == 0 {
		return err
	}
	results.print(os.Stdout)
	if out != "" {
		err = errors.Join(err, results.write(out))
	}
	if docs != "" && err == nil {
		err = results.publish(docs)
	}
	return err
}

// options say what to measure.
type options struct {
	quick       bool
	rounds      int
	seconds     float64
	only, peers string
}

func obtain(ctx context.Context, from string, o options) (*results, error) {
	if from != "" {
		return readResults(from)
	}
	r := newResults()
	err := redistest.Program("bench", func(tb testing.TB) error { return measureAll(ctx, tb, o, r) })
	return r, err
}

// bench is one run of the benchmarks.
type bench struct {
	tb       testing.TB // ends what is started
	programs programs
	seconds  float64
	redis    *redisStore
	cluster  *redisStore // once it is needed
	postgres *postgresStore
}

// newBench builds the peers in Go that are named, and starts Redis.
func newBench(ctx context.Context, tb testing.TB, seconds float64, peers []string) (*bench, error) {
	tb.Helper()
	dir, err := sourceDir()
	if err != nil {
		return nil, err
	}
	p, err := build(ctx, dir, tb.TempDir(), peers)
	if err != nil {
		return nil, err
	}
	return &bench{tb: tb, programs: p, seconds: seconds, redis: startRedis(tb)}, nil
}

// measureAll runs the workloads in rounds, the peers of a workload one after the
// other, so that what disturbs the machine for a while disturbs all of them.
func measureAll(ctx context.Context, tb testing.TB, o options, r *results) error {
	workloads, err := chosen(o)
	if err != nil {
		return err
	}
	seconds := o.seconds
	if o.quick {
		seconds /= 2
	}
	b, err := newBench(ctx, tb, seconds, peersOf(workloads))
	if err != nil {
		return err
	}
	if r.Missing, err = b.missing(ctx, peersOf(workloads)); err != nil {
		return err
	}
	for peer, why := range r.Missing {
		fmt.Fprintf(os.Stderr, "bench: without %s: %s\n", peer, why)
	}
	began := time.Now()
	var failures []error
	for round := range o.rounds {
		for _, w := range workloads {
			for i := range w.peers {
				peer := w.peers[(i+round)%len(w.peers)] // nobody is always the first
				if r.Missing[peer] != "" {
					continue
				}
				sample, err := w.run(ctx, b, peer)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err != nil {
					failures = append(failures, fmt.Errorf("%s, %s: %w", w.name, peer, err))
					fmt.Fprintln(os.Stderr, "bench:", failures[len(failures)-1])
					continue
				}
				fmt.Fprintf(os.Stderr, "%4.0fs  round %d  %-32s %-18s %9.0f jobs/s\n",
					time.Since(began).Seconds(), round+1, w.name, peer, sample.Rate)
				r.add(w.name, peer, sample)
			}
		}
	}
	return errors.Join(failures...)
}

// chosen is the part of the plan that the options ask for.
func chosen(o options) ([]workload, error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	peers, err := regexp.Compile(o.peers)
	if err != nil {
		return nil, fmt.Errorf("-peers: %w", err)
	}
	var list []workload
	for _, w := range plan() {
		w.peers = slices.DeleteFunc(slices.Clone(w.peers), func(peer string) bool {
			return !peers.MatchString(peer) || (o.quick && !slices.Contains(fewPeers, peer))
		})
		if only.MatchString(w.name) && len(w.peers) > 0 && (w.quick || !o.quick) {
			list = append(list, w)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no workload and peer matches -only and -peers")
	}
	return list, nil
}

func peersOf(workloads []workload) []string {
	return slices.DeleteFunc(slices.Clone(everyPeer), func(peer string) bool {
		return !slices.ContainsFunc(workloads, func(w workload) bool { return slices.Contains(w.peers, peer) })
	})
}

// missing tells which of the peers this machine cannot run, and why. It starts
// PostgreSQL if that is wanted.
func (b *bench) missing(ctx context.Context, peers []string) (map[string]string, error) {
	missing := make(map[string]string)
	for _, peer := range peers {
		if why := b.programs.missing(peer); why != "" {
			missing[peer] = why
		}
	}
	if !slices.Contains(peers, river) {
		return missing, nil
	}
	p, err := startPostgres(ctx)
	if errors.Is(err, errNoPostgres) {
		missing[river] = err.Error()
		return missing, nil
	}
	if err != nil {
		return nil, err
	}
	b.tb.Cleanup(func() { _ = p.Stop() })
	b.postgres = &postgresStore{p}
	return missing, nil
}

// sourceDir finds bench/ from where the program is run: there or above.
func sourceDir() (string, error) {
	for _, dir := range []string{".", "bench"} {
		if _, err := os.Stat(filepath.Join(dir, "node", "peer.js")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("run it in the repository or in bench/: node/peer.js is not there")
}
