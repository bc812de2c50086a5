// Command river is the measured process of River, at its defaults, on a pool of
// pgx's default size.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

func main() { peer.Main(open) }

// queue is one queue with a pool of its own. Another client on the same pool works:
// one that has queues cannot do without workers.
type queue struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
	name   string
}

// job carries a payload as it is.
type job struct{ json.RawMessage }

func (job) Kind() string { return "bench" }

// mostEvents is more than River completes at once: it drops events that find no
// room.
const mostEvents = 1 << 16

func open(ctx context.Context, url, name string) (peer.Peer, error) {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect river: %w", err)
	}
	q := &queue{pool: pool, name: queueName(name)}
	if err := q.migrate(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("migrate river: %w", err)
	}
	if q.client, err = river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: logger()}); err != nil {
		pool.Close()
		return nil, err
	}
	return q, nil
}

// migrate makes River's tables, or finds them made. The lock is for processes that
// open at the same time, and ends with the connection.
func (q *queue) migrate(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, q.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext('beequeue bench'))"); err != nil {
		return err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(q.pool), &rivermigrate.Config{Logger: logger()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// logger is River's own but for standard output, where the reports go.
func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// queueName is a name as River wants it: lower-case words joined by underscores.
func queueName(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return strings.Join(words, "_")
}

func (q *queue) Save(ctx context.Context, payload []byte) error {
	_, err := q.client.Insert(ctx, job{payload}, &river.InsertOpts{Queue: q.name})
	return err
}

// Bulk is River's fastest way, COPY FROM.
func (q *queue) Bulk(ctx context.Context, payload []byte, n int) error {
	jobs := make([]river.InsertManyParams, n)
	for i := range jobs {
		jobs[i] = river.InsertManyParams{Args: job{payload}, InsertOpts: &river.InsertOpts{Queue: q.name}}
	}
	_, err := q.client.InsertManyFast(ctx, jobs)
	return err
}

func (q *queue) Work(ctx context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(context.Context, *river.Job[job]) error {
		handle()
		return nil
	}))
	client, err := river.NewClient(riverpgxv5.New(q.pool), &river.Config{
		Logger:  logger(),
		Queues:  map[string]river.QueueConfig{q.name: {MaxWorkers: concurrency}},
		Workers: workers,
	})
	if err != nil {
		return nil, err
	}
	// River tells of a job when the batch that completes it is committed.
	completed, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: mostEvents,
		Kinds:    []river.EventKind{river.EventKindJobCompleted},
	})
	if err := client.Start(ctx); err != nil {
		unsubscribe()
		return nil, fmt.Errorf("start river: %w", err)
	}
	var counting sync.WaitGroup
	counting.Go(func() {
		for range completed {
			done(1)
		}
	})
	return func() {
		if err := client.Stop(context.WithoutCancel(ctx)); err != nil {
			panic(fmt.Errorf("stop river: %w", err))
		}
		counting.Wait() // Stop ends the subscription
	}, nil
}

func (q *queue) Request(ctx context.Context, payload []byte) error {
	if err := q.Save(ctx, payload); err != nil {
		return err
	}
	return peer.ErrNoResult
}

func (q *queue) Close() { q.pool.Close() }
