package main

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

// store is where a peer keeps its jobs.
func (b *bench) store(name string) storage {
	if name == river {
		return b.postgres
	}
	return b.redis
}

// complete fills in what an order leaves open.
func (b *bench) complete(o peer.Order) peer.Order {
	if o.URL == "" {
		o.URL = b.store(o.Peer).url()
	}
	if o.Queue == "" {
		o.Queue = queueOf(o.Peer)
	}
	if o.Payload == 0 {
		o.Payload = 100
	}
	if o.Jobs == 0 {
		o.Jobs = b.jobs(o.Peer, o.Task, o.Concurrency)
	}
	if o.Warm == 0 {
		o.Warm = warm(o)
	}
	return o
}

// warm is how many jobs to warm up with. Node's compiler wants some thousands until
// it has done its work; but large ones take their time.
func warm(o peer.Order) int {
	if inNode[o.Peer] {
		return min(5_000, 30_000_000/o.Payload)
	}
	return min(2_000, max(10, o.Jobs/10))
}

// fill empties the store and saves the jobs that the order is to work.
func (b *bench) fill(ctx context.Context, at storage, o peer.Order) error {
	if err := at.clear(ctx); err != nil {
		return err
	}
	if err := b.save(ctx, o, o.Jobs); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	return nil
}

// save adds n jobs to the order's queues, by the peer itself, in a process of its
// own.
func (b *bench) save(ctx context.Context, o peer.Order, n int) error {
	o.Task, o.Jobs, o.Warm = "bulk", n, 0
	p, err := b.start(ctx, o)
	if err != nil {
		return err
	}
	defer p.kill()
	if _, err := p.perform(); err != nil {
		return err
	}
	_, err = p.end()
	return err
}

// measure makes one measurement on the peer's usual server. prepare may add to
// what is in the store when the work begins.
func (b *bench) measure(ctx context.Context, name string, o peer.Order, prepare func(context.Context, peer.Order) error) (sample, error) {
	o.Peer = name
	return b.measureAt(ctx, b.store(name), b.complete(o), prepare)
}

func (b *bench) measureAt(ctx context.Context, at storage, o peer.Order, prepare func(context.Context, peer.Order) error) (sample, error) {
	var err error
	if o.Task == "drain" {
		err = b.fill(ctx, at, o)
	} else {
		err = at.clear(ctx)
	}
	if err != nil {
		return sample{}, err
	}
	if prepare != nil {
		if err := prepare(ctx, o); err != nil {
			return sample{}, fmt.Errorf("prepare: %w", err)
		}
	}
	p, err := b.start(ctx, o)
	if err != nil {
		return sample{}, err
	}
	defer p.kill()
	before, err := at.usage(ctx)
	if err != nil {
		return sample{}, err
	}
	r, err := p.perform()
	if err != nil {
		return sample{}, err
	}
	after, err := at.usage(ctx)
	if err != nil {
		return sample{}, err
	}
	used, jobs := after.less(before), float64(r.Jobs)
	s := sample{
		Rate:     jobs / r.Seconds,
		RedisCPU: 1e6 * used.cpu / jobs,
		Commands: used.commands / jobs,
		Bytes:    used.bytes / jobs,
		CPU:      1e6 * r.CPU / jobs,
		Allocs:   r.Allocs / jobs,
		StartP50: quantile(r.Start, 0.5), StartP99: quantile(r.Start, 0.99),
		ResultP50: quantile(r.Result, 0.5), ResultP99: quantile(r.Result, 0.99),
	}
	s.Memory, err = p.end()
	return s, err
}

// quantile is the smallest value that at least the part q of the values does not
// exceed; 0 where there are no values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
