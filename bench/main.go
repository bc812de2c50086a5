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
	"time"
)

func main() {
	child := flag.Bool("peer", false, "be a measured process (used by this program itself)")
	quick := flag.Bool("quick", false, "the main workloads and peers only, in under 3 minutes")
	rounds := flag.Int("rounds", 3, "rounds; the figures are medians")
	seconds := flag.Float64("seconds", 1, "about how long one measurement is to take")
	only := flag.String("only", "", "only workloads whose name matches this regular expression")
	peers := flag.String("peers", "", "only peers whose name matches this regular expression")
	out := flag.String("out", "", "write the samples to this file, as JSON")
	from := flag.String("from", "", "measure nothing: take the samples from this file")
	docs := flag.String("docs", "", "draw the charts into this folder, and renew the tables of its performance.md and of the README above it")
	flag.Parse()
	if *child {
		if err := servePeer(); err != nil {
			say(report{Error: err.Error()})
			os.Exit(1)
		}
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	err := func() error {
		results, err := obtain(ctx, *from, options{
			quick: *quick, rounds: *rounds, seconds: *seconds, only: *only, peers: *peers,
		})
		if err != nil {
			return err
		}
		if *out != "" {
			if err := results.write(*out); err != nil {
				return err
			}
		}
		results.print(os.Stdout)
		if *docs != "" {
			return results.publish(*docs)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
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
	s := &stage{}
	r := newResults()
	err := s.run(func() error { return measureAll(ctx, s, o, r) })
	return r, err
}

// bench is one run of the benchmarks.
type bench struct {
	stage    *stage
	dir      string // of this program's source, where node/peer.js is
	seconds  float64
	redis    *redisStore
	cluster  *redisStore // once it is needed
	postgres *postgresStore
}

// measureAll runs the workloads in rounds, the peers of a workload one after the
// other, so that what disturbs the machine for a while disturbs all of them.
func measureAll(ctx context.Context, s *stage, o options, r *results) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	peers, err := regexp.Compile(o.peers)
	if err != nil {
		return fmt.Errorf("-peers: %w", err)
	}
	dir, err := sourceDir()
	if err != nil {
		return err
	}
	b := &bench{stage: s, dir: dir, seconds: o.seconds, redis: startRedis(s)}
	if o.quick {
		b.seconds = min(b.seconds, 0.5)
	}
	missing := b.missing(ctx, peers)
	began := time.Now()
	for round := range o.rounds {
		for _, w := range plan() {
			if !only.MatchString(w.name) || (o.quick && !w.quick) {
				continue
			}
			names := w.peers
			if o.quick {
				names = fewPeers
			}
			for i := range names {
				peer := names[(i+round)%len(names)] // nobody is always the first
				if !peers.MatchString(peer) || slices.Contains(missing, peer) {
					continue
				}
				sample, err := w.run(ctx, b, peer)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, peer, err)
				}
				fmt.Fprintf(os.Stderr, "%4.0fs  round %d  %-32s %-18s %9.0f jobs/s\n",
					time.Since(began).Seconds(), round+1, w.name, peer, sample.Rate)
				r.add(w.name, peer, sample)
			}
		}
	}
	return nil
}

// missing tells which peers this machine cannot run, and says why.
func (b *bench) missing(ctx context.Context, wanted *regexp.Regexp) []string {
	var names []string
	for name := range peersInNode {
		if _, err := os.Stat(filepath.Join(b.dir, "node", "node_modules")); err != nil && wanted.MatchString(name) {
			fmt.Fprintf(os.Stderr, "bench: without %s: run `npm ci` in bench/node first\n", name)
			names = append(names, name)
		}
	}
	if !wanted.MatchString(river) {
		return append(names, river)
	}
	p, err := startPostgres(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: without river: %v\n", err)
		return append(names, river)
	}
	b.stage.Cleanup(func() { _ = p.Stop() })
	b.postgres = &postgresStore{p}
	return names
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
