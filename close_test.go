package beequeue_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// hang starts a worker whose n handlers run until their contexts end, and waits until they
// run. The channel causes gets the cause of the end of each context.
func hang(t *testing.T, f *queuetest.Fixture, n int) (r *queuetest.Running, causes chan error) {
	t.Helper()
	causes = make(chan error, n)
	running := make(chan struct{}, n)
	for i := range n {
		f.Save(i)
	}
	r = queuetest.Process(t, f.Queue, n, func(ctx context.Context, _ *beequeue.Job) (any, error) {
		running <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return "in vain", nil
	})
	for range n {
		queuetest.Receive(t, running, "the handlers")
	}
	return r, causes
}

// Close lets handlers finish.
func TestCloseWaitsForHandlers(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		next := make(chan struct{})
		running := make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			close(running)
			<-next
			return "done", ctx.Err()
		})
		queuetest.Receive(t, running, "the handler")
		untaken := f.Save("not taken any more")
		closed := make(chan error, 1)
		go func() { closed <- f.Close(context.Background()) }()
		queuetest.Await(t, "Close has begun", func() bool { return !f.IsRunning() })
		select {
		case err := <-closed:
			require.Fail(t, "Close must wait for the handler", "%v", err)
		case <-r.Done:
			require.Fail(t, "Process must wait for the handler")
		default:
		}
		close(next)
		require.NoError(t, queuetest.Receive(t, closed, "Close"))
		require.NoError(t, r.Wait(), "Process ends with nil")
		f.RequireState(job.ID, beequeue.StateSucceeded)
		f.RequireState(untaken.ID, beequeue.StateWaiting)
	})
}

// When the grace period is over, contexts end with the cause ErrClosed. The jobs are the
// first to be run again, and the errors of Close and Process name them.
func TestCloseHandsBack(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for name, stop := range map[string]func(f *queuetest.Fixture, r *queuetest.Running) error{
			"deadline of Close": func(f *queuetest.Fixture, _ *queuetest.Running) error {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				return f.Close(ctx)
			},
			"ShutdownTimeout": func(f *queuetest.Fixture, _ *queuetest.Running) error { return f.Close(context.Background()) },
			"cancelled Close": func(f *queuetest.Fixture, _ *queuetest.Running) error {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return f.Close(ctx)
			},
			"context of Process": func(_ *queuetest.Fixture, r *queuetest.Running) error { return r.Stop() },
		} {
			f := queuetest.Open(t, s, beequeue.Config{ShutdownTimeout: 60 * time.Millisecond, StallInterval: time.Hour})
			r, causes := hang(t, f, 3)
			f.Save("newer")
			err := stop(f, r)
			require.ErrorIs(t, err, beequeue.ErrUnfinished, name)
			require.ErrorIs(t, r.Wait(), beequeue.ErrUnfinished, name)
			for _, id := range []string{"1", "2", "3"} {
				require.ErrorContains(t, err, `"`+id+`"`, "%s: the error names the jobs", name)
			}
			for range 3 {
				require.ErrorIs(t, queuetest.Receive(t, causes, "the ends of the contexts"), beequeue.ErrClosed, name)
			}
			waiting := f.Waiting()
			require.Len(t, waiting, 4)
			require.Equal(t, "4", waiting[0], "%s: what was handed back goes before what waits", name)
			require.Empty(t, f.Active())
			require.Empty(t, f.List("HKEYS", "owners"))

			// The jobs are as new: neither a stall nor a retry was counted.
			require.Empty(t, f.List("HKEYS", "stalls"))
			other := f.Peer(beequeue.Config{})
			queuetest.Drain(t, other, 1, queuetest.Succeed)
			for _, id := range waiting {
				job := f.Lookup(id)
				require.Empty(t, job.Options.Stacktraces)
				require.Equal(t, beequeue.StatusSucceeded, job.Status)
				require.Empty(t, job.Result, "what a handler returned too late is void")
			}
		}
	})
}

// A job whose handler ignores its context is handed back nevertheless. The handler is left
// behind, and Close says so.
func TestCloseWithStuckHandler(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		running, release, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			defer close(returned)
			close(running)
			<-release
			return nil, nil
		})
		queuetest.Receive(t, running, "the handler")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, f.Close(ctx), beequeue.ErrUnfinished)
		require.ErrorIs(t, r.Wait(), beequeue.ErrUnfinished)
		f.RequireState(job.ID, beequeue.StateWaiting)
		close(release)
		queuetest.Receive(t, returned, "the end of the handler")
		f.RequireState(job.ID, beequeue.StateWaiting)
	})
}

// A handler returns just when the grace period ends. Either its outcome is recorded, or its
// job is handed back, but not both.
func TestCloseAtTheLastMoment(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for range 5 {
			f := queuetest.Open(t, s, beequeue.Config{})
			const n = 20
			running := make(chan struct{}, n)
			for i := range n {
				f.Save(i)
			}
			grace := 30 * time.Millisecond
			end := make(chan struct{})
			queuetest.Process(t, f.Queue, n, func(context.Context, *beequeue.Job) (any, error) {
				running <- struct{}{}
				<-end
				return nil, nil
			})
			for range n {
				queuetest.Receive(t, running, "the handlers")
			}
			ctx, cancel := context.WithTimeout(context.Background(), grace)
			time.AfterFunc(grace, func() { close(end) })
			err := f.Close(ctx)
			cancel()
			counts, countErr := f.Peer(beequeue.Config{}).Counts(queuetest.Bounded(t))
			require.NoError(t, countErr)
			require.EqualValues(t, n, counts.Waiting+counts.Succeeded)
			require.Equal(t, counts.Waiting > 0, err != nil, "%d were handed back: %v", counts.Waiting, err)
		}
	})
}

// Close may be called again and by several goroutines. All calls wait for the end.
func TestCloseTwice(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.OnJobSucceeded(func(string, json.RawMessage) {})
		job := f.Save(1)
		running, release := make(chan struct{}), make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			close(running)
			<-release
			return nil, nil
		})
		queuetest.Receive(t, running, "the handler")
		errs := make(chan error, 4)
		for range 4 {
			go func() { errs <- f.Close(queuetest.Bounded(t)) }()
		}
		queuetest.Await(t, "Close has begun", func() bool { return !f.IsRunning() })
		require.Empty(t, errs)
		close(release)
		for range 4 {
			require.NoError(t, queuetest.Receive(t, errs, "Close"))
		}
		require.NoError(t, r.Wait())
		require.NoError(t, f.Close(queuetest.Bounded(t)))
		f.RequireState(job.ID, beequeue.StateSucceeded)
	})
}

// A queue that did nothing, or was never reached, closes at once.
func TestCloseUnused(t *testing.T) {
	t.Parallel()
	queuetest.Within(t, "Close of a queue that did nothing", time.Second, func() time.Duration {
		f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
		began := time.Now()
		require.NoError(t, f.Close(context.Background()))
		return time.Since(began)
	})
}

// Close ends soon after its deadline if the handlers obey. It does not wait for the time
// after which disobedient handlers are given up.
func TestCloseEndsWithItsHandlers(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		queuetest.Within(t, "Close, after its deadline,", 1500*time.Millisecond, func() time.Duration {
			f := queuetest.Open(t, s, beequeue.Config{})
			r, _ := hang(t, f, 2)
			ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
			defer cancel()
			deadline, _ := ctx.Deadline()
			require.ErrorIs(t, f.Close(ctx), beequeue.ErrUnfinished)
			took := time.Since(deadline)
			require.GreaterOrEqual(t, took, time.Duration(0), "the handlers had their time")
			require.ErrorIs(t, r.Wait(), beequeue.ErrUnfinished)
			return took
		})
	})
}

// Saves that are under way when Close is called are stored, or their callers get an error.
// What Save returns is true.
func TestCloseDuringSaves(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var mu sync.Mutex
		var saved []string
		var savers sync.WaitGroup
		first := make(chan struct{}, 8)
		for range 8 {
			savers.Go(func() {
				for {
					job := f.CreateJob(nil)
					if err := job.Save(context.Background()); err != nil {
						return
					}
					mu.Lock()
					saved = append(saved, job.ID)
					mu.Unlock()
					select {
					case first <- struct{}{}:
					default:
					}
				}
			})
		}
		queuetest.Receive(t, first, "a save")
		require.NoError(t, f.Close(queuetest.Bounded(t)))
		savers.Wait()
		slices.Sort(saved)
		waiting := f.Waiting()
		slices.Sort(waiting)
		require.Equal(t, saved, waiting)
	})
}

// Close must come to an end also when the queue's own callback or handler calls it.
func TestCloseFromInside(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(f *queuetest.Fixture, stop func()){
		"OnSucceeded": func(f *queuetest.Fixture, stop func()) {
			f.OnSucceeded(func(*beequeue.Job, json.RawMessage) { stop() })
		},
		"OnJobSucceeded": func(f *queuetest.Fixture, stop func()) { f.OnJobSucceeded(func(string, json.RawMessage) { stop() }) },
		"handler":        func(*queuetest.Fixture, func()) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := queuetest.Open(t, queuetest.Mini, beequeue.Config{ShutdownTimeout: 100 * time.Millisecond})
			done := make(chan struct{})
			stop := func() {
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				defer cancel()
				_ = f.Close(ctx)
				close(done)
			}
			set(f, stop)
			if name == "OnJobSucceeded" {
				f.Subscribed(1)
			}
			f.Save(1)
			r := queuetest.Process(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				if name == "handler" {
					stop()
				}
				return nil, ctx.Err()
			})
			queuetest.Receive(t, done, "Close")
			_ = r.Wait()
		})
	}
}

// Wherever a worker is stopped, each job has succeeded or is waiting. That includes jobs that
// were claimed and not begun.
func TestStopAnywhere(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const n = 300
		batch := make([]*beequeue.Job, n)
		for i := range batch {
			batch[i] = f.CreateJob(i)
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		var begun atomic.Int64
		for stopAt := int64(1); ; stopAt += 25 {
			ctx, cancel := context.WithCancel(context.Background())
			stop := stopAt
			require.NoError(t, f.Process(ctx, 20, func(context.Context, *beequeue.Job) (any, error) {
				if n := begun.Add(1); n == stop || n == int64(len(batch)) {
					cancel()
				}
				return nil, nil
			}))
			cancel()
			counts, err := f.Counts(queuetest.Bounded(t))
			require.NoError(t, err)
			require.Equal(t, beequeue.Counts{Succeeded: begun.Load(), Waiting: n - begun.Load(), NewestJob: n}, counts)
			if counts.Waiting == 0 {
				return
			}
			stopAt = begun.Load()
		}
	})
}
