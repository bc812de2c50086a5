package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
)

func init() {
	peersInGo["beequeue"] = openBeequeue
}

// beequeuePeer is ours, at its defaults.
type beequeuePeer struct {
	client rueidis.Client
	queue  *beequeue.Queue
}

func openBeequeue(ctx context.Context, o order, queue string) (peer, error) {
	client, err := beequeue.Dial(o.URL)
	if err != nil {
		return nil, err
	}
	q, err := beequeue.New(client, queue, beequeue.Config{})
	if err == nil {
		err = q.Ready(ctx)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return &beequeuePeer{client, q}, nil
}

func (p *beequeuePeer) save(ctx context.Context, payload []byte) error {
	return p.queue.CreateJob(json.RawMessage(payload)).Save(ctx)
}

func (p *beequeuePeer) bulk(ctx context.Context, payload []byte, n int) error {
	jobs := make([]*beequeue.Job, n)
	for i := range jobs {
		jobs[i] = p.queue.CreateJob(json.RawMessage(payload))
	}
	return p.queue.SaveAll(ctx, jobs)
}

func (p *beequeuePeer) work(ctx context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	p.queue.OnSucceeded(func(*beequeue.Job, json.RawMessage) { done(1) })
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- p.queue.Process(ctx, concurrency, func(context.Context, *beequeue.Job) (any, error) {
			handle()
			return nil, nil
		})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			panic(fmt.Errorf("beequeue worker: %w", err))
		}
	}, nil
}

func (p *beequeuePeer) request(ctx context.Context, payload []byte) error {
	job := p.queue.CreateJob(json.RawMessage(payload))
	if err := job.Save(ctx); err != nil {
		return err
	}
	_, err := job.Wait(ctx)
	return err
}

func (p *beequeuePeer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.queue.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		panic(fmt.Errorf("close beequeue: %w", err))
	}
	p.client.Close()
}
