// Command beequeue is a producer or a worker that uses beequeue.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

func main() { actor.Main(open) }

type queue struct {
	*beequeue.Queue

	client rueidis.Client
}

func open(ctx context.Context, o actor.Order) (actor.Queue, error) {
	client, err := beequeue.Dial(ctx, o.URL, func(option *rueidis.ClientOption) {
		option.ClientName = "chaos-" + o.Queue
		if o.DNS != "" {
			option.Dialer.Resolver = &net.Resolver{
				PreferGo: true,
				Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, o.DNS)
				},
			}
		}
	})
	if err != nil {
		return nil, err
	}
	q, err := beequeue.New(client, o.Queue, beequeue.Config{
		StallInterval:   time.Duration(o.Stall) * time.Millisecond,
		ShutdownTimeout: time.Duration(o.Grace) * time.Millisecond,
		MaxStalls:       o.MaxStalls,
		RemoveOnSuccess: o.Remove,
		SaveReplicas:    o.Replicas,
	})
	if err != nil {
		client.Close()
		return nil, err
	}
	return &queue{q, client}, nil
}

func (q *queue) Job(payload []byte) func(context.Context) (string, error) {
	job := q.CreateJob(json.RawMessage(payload)).Retries(3)
	return func(ctx context.Context) (string, error) {
		err := job.Save(ctx)
		return job.ID, err
	}
}

func (q *queue) SaveAll(ctx context.Context, payloads [][]byte) []error {
	jobs := make([]*beequeue.Job, len(payloads))
	for i, payload := range payloads {
		jobs[i] = q.CreateJob(json.RawMessage(payload)).Retries(3)
	}
	errs := make([]error, len(jobs))
	err := q.Queue.SaveAll(ctx, jobs)
	var failed *beequeue.SaveAllError
	if errors.As(err, &failed) {
		for i, job := range jobs {
			errs[i] = failed.Errors[job]
		}
	} else if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

func (q *queue) Stored(err error) bool { return errors.Is(err, beequeue.ErrUncertain) }

func (q *queue) Work(ctx context.Context, o actor.Order, handle actor.Handler, tell actor.Tell) error {
	if !o.Log {
		q.OnError(func(err error) {
			if errors.Is(err, beequeue.ErrOwnershipLost) {
				tell(actor.Lost, nil, "", err.Error())
			} else {
				tell(actor.Error, nil, "", err.Error())
			}
		})
	}
	q.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { tell(actor.Done, job.Data, job.ID, "") })
	if o.Listen {
		q.OnJobSucceeded(func(id string, _ json.RawMessage) { tell(actor.Heard, nil, id, "") })
	}
	return q.Process(ctx, o.Concurrency, func(ctx context.Context, job *beequeue.Job) (any, error) {
		return nil, handle(ctx, job.ID, job.Data)
	})
}

func (q *queue) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = q.Queue.Close(ctx) // what Process has returned says more
	q.client.Close()
}
