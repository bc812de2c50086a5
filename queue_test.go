package beequeue_test

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/pulse"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	client := queuetest.Mini.Dial(t, "refuses")
	t.Cleanup(client.Close)
	never := func(*beequeue.Job) time.Duration { return 0 }
	for name, c := range map[string]struct {
		config beequeue.Config
		want   string // part of the message
	}{
		"ScanCount":               {beequeue.Config{ScanCount: -1}, "ScanCount: -1 is negative"},
		"StallInterval negative":  {beequeue.Config{StallInterval: -time.Second}, "StallInterval: -1s is less than 100ms"},
		"StallInterval too short": {beequeue.Config{StallInterval: 99 * time.Millisecond}, "StallInterval: 99ms is less than 100ms"},
		"ShutdownTimeout":         {beequeue.Config{ShutdownTimeout: -1}, "ShutdownTimeout"},
		"TimeoutGrace":            {beequeue.Config{TimeoutGrace: -1}, "TimeoutGrace"},
		"CallTimeout":             {beequeue.Config{CallTimeout: -1}, "CallTimeout"},
		"built-in backoff":        {beequeue.Config{Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{beequeue.Fixed: never}}, `"fixed" is built in`},
		"nameless backoff":        {beequeue.Config{Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{"": never}}, "built in"},
		"backoff without func":    {beequeue.Config{Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{"mine": nil}}, `"mine" has no func`},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := beequeue.New(client, "push", c.config)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, `beequeue: new queue "push": `)
			require.Nil(t, q)
		})
	}
	_, err := beequeue.New(nil, "push", beequeue.Config{})
	require.ErrorContains(t, err, "client is nil")
}

// A Config is copied, so later changes to its map do not matter.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	mine := map[beequeue.Strategy]beequeue.BackoffFunc{"mine": func(*beequeue.Job) time.Duration { return 0 }}
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{Backoffs: mine})
	delete(mine, "mine")
	f.Save(nil, func(j *beequeue.Job) { j.Backoff("mine", time.Second) })
}

func TestReady(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var readies atomic.Int32
		f.OnReady(func() { readies.Add(1) })
		require.Zero(t, readies.Load(), "New must not talk to Redis")
		require.NoError(t, f.Ready(queuetest.Bounded(t)))
		require.EqualValues(t, 1, readies.Load())
		require.NoError(t, f.Ready(queuetest.Bounded(t)))
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.EqualValues(t, 1, readies.Load(), "OnReady is called once")

		other := f.Peer(beequeue.Config{})
		other.OnReady(func() { readies.Add(1) })
		queuetest.Drain(t, other, 1, queuetest.Succeed)
		require.EqualValues(t, 2, readies.Load(), "Process makes a queue ready too")
	})
}

func TestReadyFromManyGoroutines(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	var readies atomic.Int32
	f.OnReady(func() { readies.Add(1) })
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- f.Ready(context.Background()) }()
	}
	for range cap(errs) {
		require.NoError(t, queuetest.Receive(t, errs, "Ready"))
	}
	require.EqualValues(t, 1, readies.Load())
}

func TestIsRunning(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	require.True(t, f.IsRunning())
	require.NoError(t, f.Close(queuetest.Bounded(t)))
	require.False(t, f.IsRunning())
}

func TestCounts(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		counts, err := f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Equal(t, beequeue.Counts{}, counts, "of a queue that has nothing")

		for i := range 3 {
			f.Save(i)
		}
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == "0" {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, nil
		})
		f.Save("delayed", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
		f.Save("own id", func(j *beequeue.Job) { j.SetID("mine") })
		running := make(chan struct{})
		release := make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			close(running)
			<-release
			return nil, nil
		})
		queuetest.Receive(t, running, "the handler")
		for range 4 {
			f.Save("waits")
		}
		counts, err = f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		assert.Equal(t, beequeue.Counts{Waiting: 4, Active: 1, Delayed: 1, Succeeded: 2, Failed: 1, NewestJob: 8}, counts)
		r.Cancel()
		close(release)
		require.NoError(t, r.Wait())
	})
}

func TestDestroy(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		n, err := f.Destroy(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Zero(t, n, "nothing was there")

		f.Save(1)
		f.Save(2, func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		f.Plant("bad", "no record")
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		f.ExpectError(queuetest.As[*beequeue.RecordError])
		f.Save(3)
		_, err = f.CheckStalled(queuetest.Bounded(t))
		require.NoError(t, err)

		n, err = f.Destroy(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Positive(t, n)
		require.Empty(t, f.Keys(), "what is left")
		require.Equal(t, "1", f.Save("again").ID, "ids begin anew")
	})
}

// A job that runs while the queue is destroyed leaves nothing behind.
func TestDestroyUnderARunningJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{StallInterval: time.Second})
		f.Save(1)
		causes := make(chan error, 1)
		r := queuetest.Process(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			_, err := f.Destroy(context.WithoutCancel(ctx))
			if err != nil {
				return nil, err
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, nil
		})
		require.ErrorIs(t, queuetest.Receive(t, causes, "the end of the handler's context"), beequeue.ErrOwnershipLost)
		f.ExpectError(queuetest.Is(beequeue.ErrOwnershipLost))
		require.NoError(t, r.Stop())
		for _, key := range []string{"jobs", "waiting", "active", "succeeded", "failed", "delayed", "owners"} {
			require.Zero(t, f.Number("EXISTS", key), "%s is back", key)
		}
	})
}

// After Close, calls that change anything return ErrClosed.
func TestClosed(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{Logger: slog.New(slog.DiscardHandler)})
	job := f.Save(1)
	unsaved := f.CreateJob(2)
	require.NoError(t, f.Close(queuetest.Bounded(t)))

	ctx := queuetest.Bounded(t)
	for name, call := range map[string]func() error{
		"Ready":        func() error { return f.Ready(ctx) },
		"Save":         func() error { return unsaved.Save(ctx) },
		"SaveAll":      func() error { return f.SaveAll(ctx, []*beequeue.Job{f.CreateJob(3)}) },
		"Process":      func() error { return f.Process(ctx, 1, queuetest.Succeed) },
		"Drain":        func() error { return f.Drain(ctx, 1, queuetest.Succeed) },
		"Destroy":      func() error { _, err := f.Destroy(ctx); return err },
		"CheckStalled": func() error { _, err := f.CheckStalled(ctx); return err },
		"RemoveJob":    func() error { return f.RemoveJob(ctx, job.ID) },
		"Remove":       func() error { return job.Remove(ctx) },
		"Retry":        func() error { return job.Retry(ctx) },
		"Wait":         func() error { _, err := job.Wait(ctx); return err },
		"Watch":        func() error { _, err := job.Watch(ctx, nil); return err },
	} {
		require.ErrorIs(t, call(), beequeue.ErrClosed, name)
	}
	f.RequireState(job.ID, beequeue.StateWaiting)
	require.Len(t, f.Places(), 1, "a refused Save stores nothing")
}

// A queue that nobody listens to is small, because a producer may have thousands. This does
// not run beside other tests, because they allocate, too.
func TestQueueIsSmall(t *testing.T) {
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	const queues = 100
	allocated := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.TotalAlloc / queues)
	}
	// Leftovers of other tests may allocate now and then.
	grown := pulse.Calmest(20_000, allocated, func() {
		for range queues {
			q, err := beequeue.New(f.Client, f.Name(), beequeue.Config{})
			require.NoError(t, err)
			require.NoError(t, q.Close(queuetest.Bounded(t)))
		}
	})
	require.LessOrEqual(t, slices.Min(grown), int64(20_000), "bytes each")
}
