package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

// endToEnd saves jobs while working them: 10,000, as in Bee-Queue's own benchmark.
// River would take minutes: it fetches as many as it has workers, ten times a second.
func endToEnd(concurrency int) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		jobs := 10_000
		if name == river {
			jobs = max(20, int(10*float64(concurrency)*b.seconds))
		}
		return b.measure(ctx, name, peer.Order{Task: "mixed", Concurrency: concurrency, Jobs: jobs}, nil)
	}
}

// idleLatency gives a worker one job at a time: few to asynq and River, whose idle
// workers look for jobs now and then, asynq's every second or so.
func idleLatency(ctx context.Context, b *bench, name string) (sample, error) {
	jobs := int(800 * b.seconds)
	if name == asynqs || name == river {
		jobs = min(jobs, 20)
	}
	return b.measure(ctx, name, peer.Order{Task: "latency", Concurrency: 1, Jobs: jobs}, nil)
}

// withPayload saves or drains jobs of a size, a part of the usual number.
func withPayload(task string, concurrency, bytes int, part float64) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		jobs := max(50, int(part*float64(b.jobs(name, task, concurrency))))
		return b.measure(ctx, name, peer.Order{Task: task, Concurrency: concurrency, Payload: bytes, Jobs: jobs}, nil)
	}
}

// backlog drains some jobs while n more wait behind them.
func backlog(n int) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		return b.measure(ctx, name, peer.Order{Task: "drain", Concurrency: 50}, func(ctx context.Context, o peer.Order) error {
			return b.save(ctx, o, n)
		})
	}
}

// othersActive drains while a worker that does nothing else has n jobs active.
func othersActive(n int) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		return b.measure(ctx, name, peer.Order{Task: "drain", Concurrency: 50}, func(ctx context.Context, o peer.Order) error {
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
func (b *bench) addDelayed(ctx context.Context, o peer.Order, n int) error {
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

func manyDelayed(ctx context.Context, b *bench, name string) (sample, error) {
	return b.measure(ctx, name, peer.Order{Task: "drain", Concurrency: 50}, func(ctx context.Context, o peer.Order) error {
		return b.addDelayed(ctx, o, 1_000_000)
	})
}

// insert writes n jobs by plain commands, a thousand at a time.
func (r *redisStore) insert(ctx context.Context, n int, commands func(c rueidis.Client, ids, records []string) rueidis.Commands) error {
	const page = 1000
	c := r.clients[0]
	record := peer.Record(peer.Payload(100))
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
func manyProcesses(n int) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		o := b.complete(peer.Order{Peer: name, Task: "drain", Concurrency: 50})
		if err := b.fill(ctx, b.redis, o); err != nil {
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
			p, err := b.start(ctx, o)
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

// drainTime is how long several processes may take for what one does in seconds.
const drainTime = time.Minute

// awaitSucceeded looks until n jobs have succeeded, and tells how often it looked.
func (r *redisStore) awaitSucceeded(ctx context.Context, key string, n int) (polls int, err error) {
	c := r.clients[0]
	for deadline := time.Now().Add(drainTime); ; time.Sleep(2 * time.Millisecond) {
		polls++
		done, err := c.Do(ctx, c.B().Scard().Key(key).Build()).AsInt64()
		switch {
		case err != nil:
			return polls, err
		case done >= int64(n):
			return polls, nil
		case time.Now().After(deadline):
			return polls, fmt.Errorf("%d of %d jobs were done in %v", done, n, drainTime)
		}
	}
}

// onCluster runs a task over n queues of a cluster.
func onCluster(task string, n int) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		if b.cluster == nil {
			b.cluster = startRedisCluster(b.tb)
		}
		o := peer.Order{Peer: name, URL: b.cluster.url(), Task: task, Concurrency: 50, Queue: "queue", Queues: n}
		o.Jobs = b.jobs(name, task, 50) / n * n
		return b.measureAt(ctx, b.cluster, b.complete(o), nil)
	}
}

// idle looks at a worker that has nothing to do.
func idle(delayed int) measurement {
	return func(ctx context.Context, b *bench, name string) (sample, error) {
		o := b.complete(peer.Order{Peer: name, Task: "idle", Concurrency: 50})
		if err := b.redis.clear(ctx); err != nil {
			return sample{}, err
		}
		if delayed > 0 {
			if err := b.addDelayed(ctx, o, delayed); err != nil {
				return sample{}, err
			}
		}
		others, err := b.redis.connections(ctx)
		if err != nil {
			return sample{}, err
		}
		p, err := b.start(ctx, o)
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
		sent, err := b.redis.monitor(ctx, length, others)
		if err != nil {
			return sample{}, err
		}
		after, err := b.redis.usage(ctx)
		if err != nil {
			return sample{}, err
		}
		connections, err := b.redis.connections(ctx)
		if err != nil {
			return sample{}, err
		}
		s := sample{
			IdleCommands: float64(sent) / length.Seconds(),
			Connections:  float64(len(connections) - len(others)),
			RedisCPU:     1e6 * after.less(before).cpu / length.Seconds(),
		}
		s.Memory, err = p.end()
		return s, err
	}
}
