package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

func init() {
	peersInGo["asynq"] = openAsynq
}

// asynqPeer is asynq at its defaults: it deletes what succeeded.
type asynqPeer struct {
	option asynq.RedisConnOpt
	client *asynq.Client
	queue  string
}

func openAsynq(_ context.Context, o order, queue string) (peer, error) {
	option, err := asynqOption(o.URL)
	if err != nil {
		return nil, err
	}
	client := asynq.NewClient(option)
	if err := client.Ping(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect asynq: %w", err), client.Close())
	}
	return &asynqPeer{option, client, queue}, nil
}

// asynqOption reads a URL: asynq's own reading, and a cluster when there is ?addr.
func asynqOption(text string) (asynq.RedisConnOpt, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("asynq: %w", err)
	}
	if more := u.Query()["addr"]; len(more) > 0 {
		return asynq.RedisClusterClientOpt{Addrs: append(more, u.Host)}, nil
	}
	return asynq.ParseRedisURI(text)
}

func (p *asynqPeer) save(ctx context.Context, payload []byte) error {
	_, err := p.client.EnqueueContext(ctx, asynq.NewTask("bench", payload), asynq.Queue(p.queue))
	return err
}

// bulk saves one by one, 64 at once: asynq has no call for many tasks.
func (p *asynqPeer) bulk(ctx context.Context, payload []byte, n int) error {
	return saveAll(ctx, []peer{p}, order{Jobs: n, Payload: len(payload)}, 64)
}

func (p *asynqPeer) work(_ context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	option := watchedRedis{p.option, asynqOutcomes{"asynq:{" + p.queue + "}:active", done}}
	server := asynq.NewServer(option, asynq.Config{
		Concurrency: concurrency,
		Queues:      map[string]int{p.queue: 1},
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

func (p *asynqPeer) request(ctx context.Context, payload []byte) error {
	if err := p.save(ctx, payload); err != nil {
		return err
	}
	return errNoResult
}

func (p *asynqPeer) close() {
	if err := p.client.Close(); err != nil {
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

// asynqOutcomes counts the outcomes that Redis has stored. asynq does not tell, and
// asking Redis would add commands to those that are measured; but asynq stores the
// outcome of a success in a script of its own.
type asynqOutcomes struct {
	active string
	done   func(n int)
}

func (a asynqOutcomes) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
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
func (a asynqOutcomes) stored(args []any) bool {
	return len(args) > 3 && args[2] == 5 && args[3] == a.active
}

func (asynqOutcomes) DialHook(next redis.DialHook) redis.DialHook { return next }

func (asynqOutcomes) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
