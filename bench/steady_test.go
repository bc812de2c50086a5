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
// compared with LIMIT's of the same round. A machine that is busy with something else
// breaks batches up: a regression shows in the best of the rounds, too.
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
	round := func() *results {
		r := newResults()
		for _, name := range bothGo {
			s, err := b.measure(t.Context(), name, peer.Order{Task: "drain", Concurrency: 50, Jobs: jobs}, nil)
			require.NoError(t, err, name)
			r.add(workload, name, s)
		}
		return r
	}
	checks := []struct {
		name  string
		value func(*results) (float64, bool)
		most  float64
	}{
		{"Redis commands a job", value(workload, commands), mostCommands},
		{"bytes a job", value(workload, bytesPerJob), mostBytes},
		{"Redis CPU a job, × LIMIT's", ratio(workload, limit, redisCPU), mostRedisCPU},
		{"client CPU a job, × LIMIT's", ratio(workload, limit, clientCPU), mostClientCPU},
	}
	best := make([]float64, len(checks))
	for i := range best {
		best[i] = math.Inf(1)
	}
	for n := range rounds {
		r, met := round(), true
		for i, check := range checks {
			got, ok := check.value(r)
			require.True(t, ok, check.name)
			best[i] = min(best[i], got)
			met = met && best[i] <= check.most
		}
		var table strings.Builder
		r.costs(workload).write(&table)
		t.Logf("round %d\n%s", n+1, table.String())
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
	connections := func() int {
		now, err := b.redis.connections(t.Context())
		require.NoError(t, err)
		return len(now)
	}
	// Redis notices some time later that a connection has ended.
	comeTo := func(want int, what string) {
		assert.Eventually(t, func() bool { return connections() == want }, time.Minute, 50*time.Millisecond, what)
	}
	none := connections() // but our own
	start := func(o peer.Order) (end func()) {
		p, err := b.start(t.Context(), o)
		require.NoError(t, err)
		return func() {
			p.kill()
			comeTo(none, "the connections of "+o.Peer+" end")
		}
	}
	for _, name := range bothGo {
		o := b.complete(peer.Order{Peer: name, Task: "latency", Concurrency: 1, Jobs: 100, Warm: 20})
		o.Warm = 0
		end := start(o)
		cold := connections()
		end()
		o.Warm = 20
		end = start(o)
		comeTo(cold, name+" has as many connections after a warm-up as without")
		end()
	}
}
