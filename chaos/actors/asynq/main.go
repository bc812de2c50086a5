// Command asynq is a producer or a worker that uses asynq. What succeeded is kept,
// so that it can be counted.
package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/hibiken/asynq"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

func main() { actor.Main(open) }

const taskType = "chaos"

type queue struct {
	connection asynq.RedisConnOpt
	client     *asynq.Client
	name       string
	keep       bool
}

func open(_ context.Context, o actor.Order) (actor.Queue, error) {
	connection, err := connection(o)
	if err != nil {
		return nil, err
	}
	return &queue{connection, asynq.NewClient(connection), o.Queue, !o.Remove}, nil
}

// connection reads a URL: asynq's own reading, a cluster where there is ?addr, and
// Sentinel where there is ?master_set.
func connection(o actor.Order) (asynq.RedisConnOpt, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("asynq: %w", err)
	}
	addresses := append([]string{u.Host}, u.Query()["addr"]...)
	switch master := u.Query().Get("master_set"); {
	case master != "":
		return asynq.RedisFailoverClientOpt{MasterName: master, SentinelAddrs: addresses}, nil
	case len(addresses) > 1:
		return asynq.RedisClusterClientOpt{Addrs: addresses}, nil
	}
	if o.DNS != "" {
		net.DefaultResolver = &net.Resolver{
			PreferGo: true,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, o.DNS)
			},
		}
	}
	option, err := asynq.ParseRedisURI(o.URL)
	if one, ok := option.(asynq.RedisClientOpt); ok {
		one.Username = u.User.Username() // which the reading leaves out
		return one, err
	}
	return option, err
}

func (q *queue) Job(payload []byte) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		options := []asynq.Option{asynq.Queue(q.name), asynq.MaxRetry(3)}
		if q.keep {
			options = append(options, asynq.Retention(time.Hour))
		}
		info, err := q.client.EnqueueContext(ctx, asynq.NewTask(taskType, payload), options...)
		if err != nil {
			return "", err
		}
		return info.ID, nil
	}
}

func (q *queue) SaveAll(ctx context.Context, payloads [][]byte) []error {
	errs := make([]error, len(payloads))
	for i, payload := range payloads {
		_, errs[i] = q.Job(payload)(ctx)
	}
	return errs
}

// Stored cannot be told.
func (q *queue) Stored(error) bool { return true }

func (q *queue) Work(ctx context.Context, o actor.Order, handle actor.Handler, tell actor.Tell) error {
	config := asynq.Config{
		Concurrency:     o.Concurrency,
		Queues:          map[string]int{q.name: 1},
		ShutdownTimeout: time.Duration(o.Grace) * time.Millisecond,
		LogLevel:        asynq.ErrorLevel,
	}
	if !o.Log {
		config.ErrorHandler = asynq.ErrorHandlerFunc(func(_ context.Context, _ *asynq.Task, err error) {
			tell(actor.Error, nil, "", err.Error())
		})
	}
	server := asynq.NewServer(q.connection, config)
	err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		return handle(ctx, id, task.Payload())
	}))
	if err != nil {
		return fmt.Errorf("start asynq: %w", err)
	}
	<-ctx.Done()
	server.Shutdown()
	return nil
}

func (q *queue) Close() { _ = q.client.Close() }
