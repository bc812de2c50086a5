package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
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
func queueOf(peer string) string {
	switch peer {
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

	IdleCommands float64 `json:"idle_commands,omitempty"` // a second
	Connections  float64 `json:"connections,omitempty"`
}

// workload is one point of the tables.
type workload struct {
	name  string
	peers []string
	quick bool // part of the quick run too
	run   func(ctx context.Context, b *bench, peer string) (sample, error)
}

// rates are about what Bee-Queue does a second; with a peer's speed they say how
// many jobs make a measurement of useful length. They are no results.
var rates = map[string]float64{
	"save": 30_000, "bulk": 70_000, "drain 1": 5_000, "drain 10": 12_000, "drain 50": 13_000, "drain 200": 13_000,
}

var speeds = map[string]float64{ours: 4, limit: 4, beeQueue: 1, minimal: 1.2, bullMQ: 0.8, asynqs: 0.7}

func (b *bench) jobs(peer, task string, concurrency int) int {
	if task == "drain" {
		task += " " + strconv.Itoa(concurrency)
	}
	rate, ok := rates[task]
	if !ok {
		rate = rates["drain 50"]
	}
	rate *= speeds[peer]
	if peer == river {
		// River fetches ten times a second, as many as it has workers.
		rate = map[string]float64{"save": 1_000, "bulk": 30_000}[task]
		rate = cmp.Or(rate, 10*float64(concurrency))
	}
	n := int(rate * b.seconds)
	if task == "bulk" {
		return max(bulkSize, n/bulkSize*bulkSize)
	}
	return max(20, n)
}

// plan is every workload, in the order of the tables.
func plan() []workload {
	var all []workload
	add := func(name string, peers []string, quick bool, run func(context.Context, *bench, string) (sample, error)) {
		all = append(all, workload{name, peers, quick, run})
	}
	simple := func(o order) func(context.Context, *bench, string) (sample, error) {
		return func(ctx context.Context, b *bench, peer string) (sample, error) { return b.measure(ctx, peer, o, nil) }
	}
	without := func(peers []string, names ...string) []string {
		return slices.DeleteFunc(slices.Clone(peers), func(p string) bool { return slices.Contains(names, p) })
	}

	add("save", everyPeer, true, simple(order{Task: "save", Concurrency: 64}))
	add("bulk save", without(everyPeer, asynqs), true, simple(order{Task: "bulk"}))
	for _, n := range []int{1, 10, 50, 200} {
		add(fmt.Sprintf("drain %d", n), everyPeer, true, simple(order{Task: "drain", Concurrency: n}))
	}
	for _, n := range []int{1, 5, 20, 50} {
		add(fmt.Sprintf("end to end %d", n), everyPeer, n == 20, func(ctx context.Context, b *bench, peer string) (sample, error) {
			jobs := 10_000
			if peer == river {
				jobs = b.jobs(peer, "mixed", n)
			}
			return b.measure(ctx, peer, order{Task: "mixed", Concurrency: n, Jobs: jobs}, nil)
		})
	}
	add("idle latency", everyPeer, true, func(ctx context.Context, b *bench, peer string) (sample, error) {
		jobs := int(800 * b.seconds)
		if peer == river {
			jobs /= 20
		}
		return b.measure(ctx, peer, order{Task: "latency", Concurrency: 1, Jobs: jobs}, nil)
	})

	for _, size := range []struct {
		name  string
		bytes int
		part  float64 // of the jobs of small payloads
	}{{"1 kB", 1000, 0.8}, {"10 kB", 10_000, 0.25}, {"100 kB", 100_000, 0.03}} {
		payload := func(o order) func(context.Context, *bench, string) (sample, error) {
			return func(ctx context.Context, b *bench, peer string) (sample, error) {
				o.Payload = size.bytes
				o.Jobs = max(50, int(size.part*float64(b.jobs(peer, o.Task, o.Concurrency))))
				return b.measure(ctx, peer, o, nil)
			}
		}
		add("save "+size.name, without(everyPeer, minimal), false, payload(order{Task: "save", Concurrency: 64}))
		add("drain 50, "+size.name, without(everyPeer, minimal), false, payload(order{Task: "drain", Concurrency: 50}))
	}

	for _, n := range []int{1_000, 100_000, 1_000_000} {
		add(fmt.Sprintf("drain 50, %s more waiting", thousands(n)), bothGo, false, backlog(n))
	}
	for _, n := range []int{0, 5_000, 50_000} {
		add(fmt.Sprintf("drain 50, %s others active", thousands(n)), bothGo, false, othersActive(n))
	}
	add("drain 50, 1,000,000 delayed", bothGo, false, manyDelayed)
	for _, n := range []int{1, 2, 4} {
		add(fmt.Sprintf("drain 50, %d processes", n), fewPeers, false, manyProcesses(n))
	}
	for _, n := range []int{1, 8} {
		add(fmt.Sprintf("drain 50, cluster, %d queues", n), []string{ours, limit, asynqs}, false, onCluster("drain", n))
		add(fmt.Sprintf("save, cluster, %d queues", n), []string{ours, limit, asynqs}, false, onCluster("save", n))
	}
	add("idle", without(everyPeer, river), false, idle(0))
	add("idle, 1,000,000 delayed", []string{ours}, false, idle(1_000_000))
	return all
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// backlog drains some jobs while n more wait behind them.
func backlog(n int) func(context.Context, *bench, string) (sample, error) {
	return func(ctx context.Context, b *bench, peer string) (sample, error) {
		return b.measure(ctx, peer, order{Task: "drain", Concurrency: 50}, func(ctx context.Context, o order) error {
			o.Jobs, o.Task, o.Warm = n, "bulk", 0
			_, err := b.once(ctx, o)
			return err
		})
	}
}

// othersActive drains while a worker that does nothing else has n jobs active.
func othersActive(n int) func(context.Context, *bench, string) (sample, error) {
	return func(ctx context.Context, b *bench, peer string) (sample, error) {
		return b.measure(ctx, peer, order{Task: "drain", Concurrency: 50}, func(ctx context.Context, o order) error {
			return b.redis.insert(ctx, n, func(c rueidis.Client, ids, fields []string) rueidis.Commands {
				base := "bq:" + o.Queue + ":"
				owners := c.B().Hset().Key(base + "owners").FieldValue()
				jobs := c.B().Hset().Key(base + "jobs").FieldValue()
				for i, id := range ids {
					owners = owners.FieldValue(id, "other/1")
					jobs = jobs.FieldValue(id, fields[i])
				}
				leases := c.B().Zadd().Key(base+"workers").ScoreMember().ScoreMember(1e15, "other")
				return rueidis.Commands{
					c.B().Lpush().Key(base + "active").Element(ids...).Build(), owners.Build(), jobs.Build(), leases.Build(),
				}
			})
		})
	}
}

// addDelayed puts n jobs into delayed that will not be due while we look.
func (b *bench) addDelayed(ctx context.Context, o order, n int) error {
	due := float64(time.Now().Add(24 * time.Hour).UnixMilli())
	return b.redis.insert(ctx, n, func(c rueidis.Client, ids, fields []string) rueidis.Commands {
		base := "bq:" + o.Queue + ":"
		jobs := c.B().Hset().Key(base + "jobs").FieldValue()
		delayed := c.B().Zadd().Key(base + "delayed").ScoreMember()
		for i, id := range ids {
			jobs = jobs.FieldValue(id, fields[i])
			delayed = delayed.ScoreMember(due, id)
		}
		return rueidis.Commands{jobs.Build(), delayed.Build()}
	})
}

func manyDelayed(ctx context.Context, b *bench, peer string) (sample, error) {
	return b.measure(ctx, peer, order{Task: "drain", Concurrency: 50}, func(ctx context.Context, o order) error {
		return b.addDelayed(ctx, o, 1_000_000)
	})
}

// insert writes n jobs by plain commands, a thousand at a time.
func (r *redisStore) insert(ctx context.Context, n int, commands func(c rueidis.Client, ids, records []string) rueidis.Commands) error {
	const page = 1000
	c := r.clients[0]
	record := limitRecord(payloadOf(100))
	for first := 0; first < n; first += page {
		var ids, records []string
		for i := first; i < min(first+page, n); i++ {
			ids = append(ids, "other"+strconv.Itoa(i))
			records = append(records, record)
		}
		for _, result := range c.DoMulti(ctx, commands(c, ids, records)...) {
			if err := result.Error(); err != nil {
				return fmt.Errorf("insert jobs: %w", err)
			}
		}
	}
	return nil
}

// manyProcesses drains with n worker processes of concurrency 50.
func manyProcesses(n int) func(context.Context, *bench, string) (sample, error) {
	return func(ctx context.Context, b *bench, peer string) (sample, error) {
		o := b.complete(order{Peer: peer, Task: "drain", Concurrency: 50})
		if err := b.fill(ctx, o); err != nil {
			return sample{}, err
		}
		o.Task = "work"
		var processes []*process
		defer func() {
			for _, p := range processes {
				p.kill()
			}
		}()
		for range n {
			p, err := start(ctx, b.dir, o)
			if err != nil {
				return sample{}, err
			}
			processes = append(processes, p)
		}
		before, err := b.redis.usage(ctx)
		if err != nil {
			return sample{}, err
		}
		began := time.Now()
		for _, p := range processes {
			if err := p.say("go"); err != nil {
				return sample{}, err
			}
		}
		polls, err := b.redis.awaitSucceeded(ctx, "bq:"+o.Queue+":succeeded", o.Jobs)
		if err != nil {
			return sample{}, err
		}
		seconds := time.Since(began).Seconds()
		after, err := b.redis.usage(ctx)
		if err != nil {
			return sample{}, err
		}
		used := after.less(before)
		jobs := float64(o.Jobs)
		s := sample{
			Rate: jobs / seconds, RedisCPU: 1e6 * used.cpu / jobs,
			Commands: (used.commands - float64(polls)) / jobs, Bytes: used.bytes / jobs,
		}
		for _, p := range processes {
			if _, err := p.hear(); err != nil {
				return s, err
			}
			memory, err := p.end()
			if err != nil {
				return s, err
			}
			s.Memory = max(s.Memory, memory)
		}
		processes = nil
		return s, nil
	}
}

// awaitSucceeded looks until n jobs have succeeded, and tells how often it looked.
func (r *redisStore) awaitSucceeded(ctx context.Context, key string, n int) (polls int, err error) {
	c := r.clients[0]
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		polls++
		done, err := c.Do(ctx, c.B().Scard().Key(key).Build()).AsInt64()
		switch {
		case err != nil:
			return polls, err
		case done >= int64(n):
			return polls, nil
		case time.Now().After(deadline):
			return polls, fmt.Errorf("%d of %d jobs were done in %v", done, n, patience)
		}
	}
}

// onCluster runs a task over n queues of a cluster.
func onCluster(task string, n int) func(context.Context, *bench, string) (sample, error) {
	return func(ctx context.Context, b *bench, peer string) (sample, error) {
		if b.cluster == nil {
			b.cluster = startRedisCluster(b.stage)
		}
		o := order{Task: task, Concurrency: 50, Queue: "queue", Queues: n}
		o.Peer, o.URL = peer, b.cluster.url()
		o.Jobs = b.jobs(peer, task, 50) / n * n
		return b.measureAt(ctx, b.cluster, b.complete(o), nil)
	}
}

// idle looks at a worker that has nothing to do.
func idle(delayed int) func(context.Context, *bench, string) (sample, error) {
	return func(ctx context.Context, b *bench, peer string) (sample, error) {
		o := b.complete(order{Peer: peer, Task: "idle", Concurrency: 50})
		if err := b.redis.clear(ctx); err != nil {
			return sample{}, err
		}
		if delayed > 0 {
			if err := b.addDelayed(ctx, o, delayed); err != nil {
				return sample{}, err
			}
		}
		p, err := start(ctx, b.dir, o)
		if err != nil {
			return sample{}, err
		}
		defer p.kill()
		if _, err := p.perform(); err != nil {
			return sample{}, err
		}
		const settle, length = time.Second, 10 * time.Second
		time.Sleep(settle)
		before, err := b.redis.usage(ctx)
		if err != nil {
			return sample{}, err
		}
		time.Sleep(length)
		after, err := b.redis.usage(ctx)
		if err != nil {
			return sample{}, err
		}
		connections, err := b.redis.connections(ctx)
		if err != nil {
			return sample{}, err
		}
		used := after.less(before)
		s := sample{
			IdleCommands: used.commands / length.Seconds(), Connections: float64(connections),
			RedisCPU: 1e6 * used.cpu / length.Seconds(),
		}
		s.Memory, err = p.end()
		return s, err
	}
}
