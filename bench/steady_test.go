package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// What a job may cost at concurrency 50. Commands and bytes are counted; CPU time is
// compared with LIMIT's of the same run. A machine that is busy with something else
// breaks batches up: so the least of all rounds counts, of each side.
const (
	mostCommands  = 3.0
	mostBytes     = 300.0
	mostRedisCPU  = 2.0 // times LIMIT's
	mostClientCPU = 4.0 // times LIMIT's
)

// TestSteadyFigures guards the figures that do not depend on the machine's speed.
func TestSteadyFigures(t *testing.T) {
	redistest.Available(t)
	b, err := newBench(t.Context(), t, 1, bothGo)
	require.NoError(t, err)
	const workload, jobs, rounds = "drain 50", 30_000, 9
	round := func(r *results) {
		for _, name := range bothGo {
			s, err := b.measure(t.Context(), name, peer.Order{Task: "drain", Concurrency: 50, Jobs: jobs}, nil)
			require.NoError(t, err, name)
			r.add(workload, name, s)
		}
	}
	checks := []struct {
		name    string
		of      figure
		ofLimit bool // × LIMIT's
		most    float64
	}{
		{"Redis commands a job", commands, false, mostCommands},
		{"bytes a job", bytesPerJob, false, mostBytes},
		{"Redis CPU a job, × LIMIT's", redisCPU, true, mostRedisCPU},
		{"client CPU a job, × LIMIT's", clientCPU, true, mostClientCPU},
	}
	least := func(r *results, name string, of figure) float64 {
		got := math.Inf(1)
		for _, s := range r.Samples[workload][name] {
			got = min(got, of(s))
		}
		return got
	}
	all, best := newResults(), make([]float64, len(checks))
	for n := range rounds {
		round(all)
		met := true
		for i, check := range checks {
			best[i] = least(all, ours, check.of)
			if check.ofLimit {
				best[i] /= least(all, limit, check.of)
			}
			met = met && best[i] <= check.most
		}
		var table strings.Builder
		all.costs(workload).write(&table)
		t.Logf("medians of %d rounds; the best: %.3g\n%s", n+1, best, table.String())
		if met {
			return
		}
	}
	for i, check := range checks {
		assert.LessOrEqual(t, best[i], check.most, check.name)
	}
}

// TestWarmUpDisconnects sees from the server's side that a warm-up leaves nothing.
func TestWarmUpDisconnects(t *testing.T) {
	redistest.Available(t)
	b, err := newBench(t.Context(), t, 1, bothGo)
	require.NoError(t, err)
	// Redis notices some time later that a connection has ended.
	comeTo := func(what string, holds func(connections int) bool) {
		assert.Eventually(t, func() bool {
			now, err := b.redis.connections(t.Context())
			return err == nil && holds(len(now))
		}, time.Minute, 50*time.Millisecond, what)
	}
	settled := func() (n int) { // in five looks
		last, same := -1, 0
		comeTo("connections settle", func(now int) bool {
			if same++; now != last {
				last, same = now, 1
			}
			n = now
			return same == 5
		})
		return n
	}
	none := settled() // but our own
	start := func(o peer.Order) (end func()) {
		p, err := b.start(t.Context(), o)
		require.NoError(t, err)
		return func() {
			p.kill()
			comeTo("the connections of "+o.Peer+" end", func(n int) bool { return n == none })
		}
	}
	for _, name := range bothGo {
		o := b.complete(peer.Order{Peer: name, Task: "latency", Concurrency: 1, Jobs: 100, Warm: 20})
		o.Warm = 0
		end := start(o)
		cold := settled()
		end()
		o.Warm = 20
		end = start(o)
		comeTo(name+" has as many connections after a warm-up as without", func(n int) bool { return n == cold })
		end()
	}
}
