package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

// The peers, in the order of the tables.
const (
	ours     = "beequeue"
	limit    = "LIMIT"
	beeQueue = "bee-queue"
	minimal  = "bee-queue minimal"
	bullMQ   = "bullmq"
	asynqs   = "asynq"
	river    = "river"
)

var (
	everyPeer = []string{ours, limit, beeQueue, minimal, bullMQ, asynqs, river}
	fewPeers  = []string{ours, limit, beeQueue}
	bothGo    = []string{ours, limit}
)

// queueOf is the queue's name for a peer: those with Bee-Queue's keys share them.
func queueOf(name string) string {
	switch name {
	case bullMQ, asynqs, river:
		return "bench"
	}
	return "{bench}"
}

// sample is one measurement.
type sample struct {
	Rate     float64 `json:"rate"`      // jobs/s
	RedisCPU float64 `json:"redis_cpu"` // us a job; PostgreSQL's for river
	Commands float64 `json:"commands"`  // a job
	Bytes    float64 `json:"bytes"`     // a job
	CPU      float64 `json:"cpu"`       // us a job, of the measured processes
	Allocs   float64 `json:"allocs"`    // a job
	Memory   float64 `json:"memory"`    // MiB, the most a process had

	StartP50  float64 `json:"start_p50,omitempty"` // us
	StartP99  float64 `json:"start_p99,omitempty"`
	ResultP50 float64 `json:"result_p50,omitempty"`
	ResultP99 float64 `json:"result_p99,omitempty"`

	IdleCommands float64 `json:"idle_commands,omitempty"` // a second, those in scripts not counted
	Connections  float64 `json:"connections,omitempty"`
}

// measurement makes one measurement of a peer.
type measurement func(ctx context.Context, b *bench, name string) (sample, error)

// workload is one point of the tables.
type workload struct {
	name  string
	peers []string
	quick bool // part of the quick run too
	run   measurement
}

// expected is about how many thousand jobs a second the peers do, in the order of
// everyPeer, on a quiet machine of two cores: it says how many jobs make a
// measurement of useful length. These are no results.
var expected = map[string][]float64{
	"save":      {200, 250, 80, 80, 40, 60, 3},
	"bulk":      {450, 500, 125, 125, 45, 50, 30},
	"drain 1":   {30, 33, 11, 12, 11, 11, 0.01},
	"drain 10":  {100, 110, 25, 28, 24, 18, 0.1}, // River: as many as it has workers, ten times a second
	"drain 50":  {160, 180, 30, 36, 25, 17, 0.5},
	"drain 200": {220, 250, 30, 36, 30, 20, 2},
}

// jobs is how many jobs a peer is given at a task.
func (b *bench) jobs(name, task string, concurrency int) int {
	if task != "save" && task != "bulk" {
		task = "drain " + strconv.Itoa(concurrency)
	}
	list := expected[task]
	if list == nil {
		list = expected["drain 50"]
	}
	n := int(1000 * list[slices.Index(everyPeer, name)] * b.seconds)
	if task == "bulk" {
		return max(peer.BulkSize, n/peer.BulkSize*peer.BulkSize)
	}
	return max(20, n)
}

// plan is every workload, in the order of the tables.
func plan() []workload {
	var all []workload
	add := func(name string, peers []string, quick bool, run measurement) {
		all = append(all, workload{name, peers, quick, run})
	}
	simple := func(o peer.Order) measurement {
		return func(ctx context.Context, b *bench, name string) (sample, error) { return b.measure(ctx, name, o, nil) }
	}

	add("save", everyPeer, true, simple(peer.Order{Task: "save", Concurrency: 64}))
	add("bulk save", without(everyPeer, asynqs), true, simple(peer.Order{Task: "bulk"})) // asynq has none
	for _, n := range []int{1, 10, 50, 200} {
		add(fmt.Sprintf("drain %d", n), everyPeer, true, simple(peer.Order{Task: "drain", Concurrency: n}))
	}
	for _, n := range []int{1, 5, 20, 50} {
		add(fmt.Sprintf("end to end %d", n), everyPeer, n == 20, endToEnd(n))
	}
	add("idle latency", everyPeer, true, idleLatency)

	for _, size := range []struct {
		name  string
		bytes int
		part  float64 // of the jobs of small payloads
	}{{"1 kB", 1000, 0.6}, {"10 kB", 10_000, 0.15}, {"100 kB", 100_000, 0.02}} {
		add("save "+size.name, without(everyPeer, minimal), false, withPayload("save", 64, size.bytes, size.part))
		add("drain 50, "+size.name, without(everyPeer, minimal), false, withPayload("drain", 50, size.bytes, size.part))
	}

	for _, n := range []int{1_000, 100_000, 1_000_000} {
		add(fmt.Sprintf("drain 50, %s more waiting", thousands(n)), bothGo, false, backlog(n))
	}
	for _, n := range []int{0, 5_000, 50_000} {
		// LIMIT looks for its jobs from the far end, past all of these.
		add(fmt.Sprintf("drain 50, %s others active", thousands(n)), []string{ours}, false, othersActive(n))
	}
	add("drain 50, 1,000,000 delayed", bothGo, false, manyDelayed)
	for _, n := range []int{1, 2, 4} {
		add(fmt.Sprintf("drain 50, processes: %d", n), fewPeers, false, manyProcesses(n))
	}
	for _, n := range []int{1, 8} {
		add(fmt.Sprintf("drain 50, cluster, queues: %d", n), []string{ours, limit, asynqs}, false, onCluster("drain", n))
		add(fmt.Sprintf("save, cluster, queues: %d", n), []string{ours, limit, asynqs}, false, onCluster("save", n))
	}
	add("idle", without(everyPeer, river), false, idle(0))
	add("idle, 1,000,000 delayed", []string{ours}, false, idle(1_000_000))
	return all
}

func without(peers []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(peers), func(p string) bool { return p == name })
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
