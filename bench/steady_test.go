package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// What a job may cost at concurrency 50. Commands and bytes are counted, and the
// same on any machine; CPU time is compared with LIMIT's of the same run, and the
// bounds leave room for a busy machine.
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
	const workload, jobs, rounds = "drain 50", 30_000, 3
	r := &results{Samples: make(map[string]map[string][]sample)}
	for range rounds {
		for _, name := range bothGo {
			s, err := b.measure(t.Context(), name, peer.Order{Task: "drain", Concurrency: 50, Jobs: jobs}, nil)
			require.NoError(t, err, name)
			r.add(workload, name, s)
		}
	}
	var table strings.Builder
	r.costs(workload).write(&table)
	t.Logf("medians of %d rounds\n%s", rounds, table.String())

	for _, check := range []struct {
		name  string
		value func(*results) (float64, bool)
		most  float64
	}{
		{"Redis commands a job", value(workload, commands), mostCommands},
		{"bytes a job", value(workload, bytesPerJob), mostBytes},
		{"Redis CPU a job, × LIMIT's", ratio(workload, limit, redisCPU), mostRedisCPU},
		{"client CPU a job, × LIMIT's", ratio(workload, limit, clientCPU), mostClientCPU},
	} {
		got, ok := check.value(r)
		assert.True(t, ok, check.name)
		assert.LessOrEqual(t, got, check.most, check.name)
	}
}

// TestWarmUpDisconnects sees from the server's side that a warm-up leaves nothing.
func TestWarmUpDisconnects(t *testing.T) {
	redistest.Available(t)
	b, err := newBench(t.Context(), t, 1, bothGo)
	require.NoError(t, err)
	connections := func(o peer.Order) (n int) {
		p, err := b.start(t.Context(), o)
		require.NoError(t, err)
		defer p.kill()
		assert.Eventually(t, func() bool { // Redis notices some milliseconds later
			now, err := b.redis.connections(t.Context())
			same := err == nil && len(now) == n
			n = len(now)
			return same
		}, 5*time.Second, 50*time.Millisecond)
		return n
	}
	for _, name := range bothGo {
		o := b.complete(peer.Order{Peer: name, Task: "latency", Concurrency: 1, Jobs: 100, Warm: 20})
		warm := connections(o)
		o.Warm = 0
		assert.Equal(t, connections(o), warm, name)
	}
}
