// Command asynq is the measured process of asynq, at its defaults: it deletes what
// succeeded.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

func main() { peer.Main(open) }

// queue is one queue with a client of its own.
type queue struct {
	option asynq.RedisConnOpt
	client *asynq.Client
	name   string
}

func open(_ context.Context, url, name string) (peer.Peer, error) {
	option, err := connection(url)
	if err != nil {
		return nil, err
	}
	client := asynq.NewClient(option)
	if err := client.Ping(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect asynq: %w", err), client.Close())
	}
	return &queue{option, client, name}, nil
}

// connection reads a URL: asynq's own reading, and a cluster when there is ?addr.
func connection(text string) (asynq.RedisConnOpt, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("asynq: %w", err)
	}
	if more := u.Query()["addr"]; len(more) > 0 {
		return asynq.RedisClusterClientOpt{Addrs: append(more, u.Host)}, nil
	}
	return asynq.ParseRedisURI(text)
}

func (q *queue) Save(ctx context.Context, payload []byte) error {
	_, err := q.client.EnqueueContext(ctx, asynq.NewTask("bench", payload), asynq.Queue(q.name))
	return err
}

// Bulk saves one by one, 64 at once: asynq has no call for many tasks.
func (q *queue) Bulk(ctx context.Context, payload []byte, n int) error {
	return peer.SaveAll(ctx, q, payload, n, 64)
}

func (q *queue) Work(_ context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	option := watchedRedis{q.option, outcomes{"asynq:{" + q.name + "}:active", done}}
	server := asynq.NewServer(option, asynq.Config{
		Concurrency: concurrency,
		Queues:      map[string]int{q.name: 1},
		LogLevel:    asynq.ErrorLevel,
	})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		handle()
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("start asynq: %w", err)
	}
	return server.Shutdown, nil
}

func (q *queue) Request(ctx context.Context, payload []byte) error {
	if err := q.Save(ctx, payload); err != nil {
		return err
	}
	return peer.ErrNoResult
}

func (q *queue) Close() {
	if err := q.client.Close(); err != nil {
		panic(fmt.Errorf("close asynq: %w", err))
	}
}

// watchedRedis is asynq's connection with a hook.
type watchedRedis struct {
	asynq.RedisConnOpt
	hook redis.Hook
}

func (w watchedRedis) MakeRedisClient() any {
	client := w.RedisConnOpt.MakeRedisClient()
	client.(interface{ AddHook(hook redis.Hook) }).AddHook(w.hook) // go-redis's clients all have it
	return client
}

// outcomes counts the outcomes that Redis has stored. asynq does not tell, and
// asking Redis would add commands to those that are measured; but asynq stores the
// outcome of a success in a script of its own.
type outcomes struct {
	active string
	done   func(n int)
}

func (a outcomes) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err == nil && a.stored(cmd.Args()) {
			a.done(1)
		}
		return err
	}
}

// stored tells whether this is the script: evalsha or eval, the script, five keys,
// and the first of them the list of active tasks. No other has that for its first
// but the one that gives a task back, with four keys.
func (a outcomes) stored(args []any) bool {
	return len(args) > 3 && args[2] == 5 && args[3] == a.active
}

func (outcomes) DialHook(next redis.DialHook) redis.DialHook { return next }

func (outcomes) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
