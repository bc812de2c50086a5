package main

import (
	"context"
	"fmt"
	"slices"
)

// store is where a peer keeps its jobs.
func (b *bench) store(peer string) storage {
	if peer == river {
		return b.postgres
	}
	return b.redis
}

// complete fills in what an order leaves open.
func (b *bench) complete(o order) order {
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
		o.Warm = min(2_000, max(20, o.Jobs/10))
	}
	return o
}

// once runs an order in a process of its own, without measuring.
func (b *bench) once(ctx context.Context, o order) (report, error) {
	p, err := start(ctx, b.dir, o)
	if err != nil {
		return report{}, err
	}
	defer p.kill()
	r, err := p.perform()
	if err != nil {
		return r, err
	}
	_, err = p.end()
	return r, err
}

// fill empties the store and saves the jobs that the order is to work.
func (b *bench) fill(ctx context.Context, o order) error {
	if err := b.store(o.Peer).clear(ctx); err != nil {
		return err
	}
	return b.refill(ctx, o)
}

func (b *bench) refill(ctx context.Context, o order) error {
	o.Task, o.Warm = "bulk", 0
	if _, err := b.once(ctx, o); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	return nil
}

// measure makes one measurement on the peer's usual server. prepare may add to
// what is in the store when the work begins.
func (b *bench) measure(ctx context.Context, peer string, o order, prepare func(context.Context, order) error) (sample, error) {
	o.Peer = peer
	return b.measureAt(ctx, b.store(peer), b.complete(o), prepare)
}

func (b *bench) measureAt(ctx context.Context, at storage, o order, prepare func(context.Context, order) error) (sample, error) {
	if err := at.clear(ctx); err != nil {
		return sample{}, err
	}
	if o.Task == "drain" {
		if err := b.refill(ctx, o); err != nil {
			return sample{}, err
		}
	}
	if prepare != nil {
		if err := prepare(ctx, o); err != nil {
			return sample{}, fmt.Errorf("prepare: %w", err)
		}
	}
	p, err := start(ctx, b.dir, o)
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

// quantile gives 0 where there are no values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
