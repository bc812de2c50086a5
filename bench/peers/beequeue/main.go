// Command beequeue is the measured process of beequeue, at its defaults.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

func main() { peer.Main(open) }

// queue is one queue with a client of its own.
type queue struct {
	*beequeue.Queue

	client rueidis.Client
}

func open(ctx context.Context, url, name string) (peer.Peer, error) {
	client, err := beequeue.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	q, err := beequeue.New(client, name, beequeue.Config{})
	if err == nil {
		err = q.Ready(ctx)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return &queue{q, client}, nil
}

func (q *queue) Save(ctx context.Context, payload []byte) error {
	return q.CreateJob(json.RawMessage(payload)).Save(ctx)
}

func (q *queue) Bulk(ctx context.Context, payload []byte, n int) error {
	jobs := make([]*beequeue.Job, n)
	for i := range jobs {
		jobs[i] = q.CreateJob(json.RawMessage(payload))
	}
	return q.SaveAll(ctx, jobs)
}

func (q *queue) Work(ctx context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	q.OnSucceeded(func(*beequeue.Job, json.RawMessage) { done(1) })
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- q.Process(ctx, concurrency, func(context.Context, *beequeue.Job) (any, error) {
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

func (q *queue) Request(ctx context.Context, payload []byte) error {
	job := q.CreateJob(json.RawMessage(payload))
	if err := job.Save(ctx); err != nil {
		return err
	}
	_, err := job.Wait(ctx)
	return err
}

func (q *queue) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := q.Queue.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		panic(fmt.Errorf("close beequeue: %w", err))
	}
	q.client.Close()
}
