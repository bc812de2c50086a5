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
	riverqueue "github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

func init() {
	peersInGo["river"] = openRiver
}

// riverPeer is River at its defaults, on a pool of pgx's default size. Another
// client on the same pool works: one that has queues cannot do without workers.
type riverPeer struct {
	pool   *pgxpool.Pool
	client *riverqueue.Client[pgx.Tx]
	queue  string
}

// riverJob carries a payload as it is.
type riverJob struct{ json.RawMessage }

func (riverJob) Kind() string { return "bench" }

// riverEvents is more than River completes at once: it drops events that find no
// room.
const riverEvents = 1 << 16

func openRiver(ctx context.Context, o order, queue string) (peer, error) {
	pool, err := pgxpool.New(ctx, o.URL)
	if err != nil {
		return nil, fmt.Errorf("connect river: %w", err)
	}
	p := &riverPeer{pool: pool, queue: riverName(queue)}
	if err := p.migrate(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("migrate river: %w", err)
	}
	if p.client, err = riverqueue.NewClient(riverpgxv5.New(pool), &riverqueue.Config{Logger: riverLogger()}); err != nil {
		pool.Close()
		return nil, err
	}
	return p, nil
}

// migrate makes River's tables, or finds them made. The lock is for processes that
// open at the same time, and ends with the connection.
func (p *riverPeer) migrate(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext('beequeue bench'))"); err != nil {
		return err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(p.pool), &rivermigrate.Config{Logger: riverLogger()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// riverLogger is River's own but for standard output, where the reports go.
func riverLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// riverName is a name as River wants it: lower-case words joined by underscores.
func riverName(queue string) string {
	words := strings.FieldsFunc(strings.ToLower(queue), func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return strings.Join(words, "_")
}

func (p *riverPeer) save(ctx context.Context, payload []byte) error {
	_, err := p.client.Insert(ctx, riverJob{payload}, &riverqueue.InsertOpts{Queue: p.queue})
	return err
}

// bulk is River's fastest way, COPY FROM.
func (p *riverPeer) bulk(ctx context.Context, payload []byte, n int) error {
	jobs := make([]riverqueue.InsertManyParams, n)
	for i := range jobs {
		jobs[i] = riverqueue.InsertManyParams{Args: riverJob{payload}, InsertOpts: &riverqueue.InsertOpts{Queue: p.queue}}
	}
	_, err := p.client.InsertManyFast(ctx, jobs)
	return err
}

func (p *riverPeer) work(ctx context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	workers := riverqueue.NewWorkers()
	riverqueue.AddWorker(workers, riverqueue.WorkFunc(func(context.Context, *riverqueue.Job[riverJob]) error {
		handle()
		return nil
	}))
	client, err := riverqueue.NewClient(riverpgxv5.New(p.pool), &riverqueue.Config{
		Logger:  riverLogger(),
		Queues:  map[string]riverqueue.QueueConfig{p.queue: {MaxWorkers: concurrency}},
		Workers: workers,
	})
	if err != nil {
		return nil, err
	}
	// River tells of a job when the batch that completes it is committed.
	completed, unsubscribe := client.SubscribeConfig(&riverqueue.SubscribeConfig{
		ChanSize: riverEvents,
		Kinds:    []riverqueue.EventKind{riverqueue.EventKindJobCompleted},
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

func (p *riverPeer) request(ctx context.Context, payload []byte) error {
	if err := p.save(ctx, payload); err != nil {
		return err
	}
	return errNoResult
}

func (p *riverPeer) close() { p.pool.Close() }
