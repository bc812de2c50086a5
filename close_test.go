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

// hang starts a worker whose n handlers run until their contexts end, and waits
// for them. causes gets why each context ended.
func hang(t *testing.T, f *fixture, n int) (r *running, causes chan error) {
	t.Helper()
	causes = make(chan error, n)
	running := make(chan struct{}, n)
	for i := range n {
		f.save(i)
	}
	r = process(t, f.Queue, n, func(ctx context.Context, _ *beequeue.Job) (any, error) {
		running <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return "in vain", nil
	})
	for range n {
		receive(t, running, "the handlers")
	}
	return r, causes
}

// Close lets handlers finish.
func TestCloseWaitsForHandlers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		job := f.save(1)
		next := make(chan struct{})
		running := make(chan struct{})
		r := process(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			close(running)
			<-next
			return "done", ctx.Err()
		})
		receive(t, running, "the handler")
		untaken := f.save("not taken any more")
		closed := make(chan error, 1)
		go func() { closed <- f.Close(context.Background()) }()
		await(t, "Close has begun", func() bool { return !f.IsRunning() })
		select {
		case err := <-closed:
			require.Fail(t, "Close must wait for the handler", "%v", err)
		case <-r.done:
			require.Fail(t, "Process must wait for the handler")
		default:
		}
		close(next)
		require.NoError(t, receive(t, closed, "Close"))
		require.NoError(t, r.wait(), "Process ends with nil")
		f.requireState(job.ID, beequeue.StateSucceeded)
		f.requireState(untaken.ID, beequeue.StateWaiting)
	})
}

// When the grace time is over, contexts end with the cause ErrClosed, the jobs
// are the first to be run again, and everybody is told.
func TestCloseHandsBack(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		for name, stop := range map[string]func(f *fixture, r *running) error{
			"deadline of Close": func(f *fixture, _ *running) error {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				return f.Close(ctx)
			},
			"ShutdownTimeout": func(f *fixture, _ *running) error { return f.Close(context.Background()) },
			"cancelled Close": func(f *fixture, _ *running) error {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return f.Close(ctx)
			},
			"context of Process": func(_ *fixture, r *running) error { return r.stop() },
		} {
			f := open(t, s, beequeue.Config{ShutdownTimeout: 60 * time.Millisecond, StallInterval: time.Hour})
			r, causes := hang(t, f, 3)
			f.save("newer")
			err := stop(f, r)
			require.ErrorIs(t, err, beequeue.ErrUnfinished, name)
			require.ErrorIs(t, r.wait(), beequeue.ErrUnfinished, name)
			for _, id := range []string{"1", "2", "3"} {
				require.ErrorContains(t, err, `"`+id+`"`, "%s: the error names the jobs", name)
			}
			for range 3 {
				require.ErrorIs(t, receive(t, causes, "the ends of the contexts"), beequeue.ErrClosed, name)
			}
			waiting := f.waiting()
			require.Len(t, waiting, 4)
			require.Equal(t, "4", waiting[0], "%s: what was handed back goes before what waits", name)
			require.Empty(t, f.active())
			require.Empty(t, f.list("HKEYS", "owners"))

			// They are as new: no stall, no retry is on their account.
			require.Empty(t, f.list("HKEYS", "stalls"))
			other := f.peer(beequeue.Config{})
			drain(t, other, 1, succeed)
			for _, id := range waiting {
				job := f.lookup(id)
				require.Empty(t, job.Options.Stacktraces)
				require.Equal(t, beequeue.StatusSucceeded, job.Status)
				require.Empty(t, job.Result, "what a handler returned too late is void")
			}
		}
	})
}

// Jobs of a handler that ignores its context are handed back all the same; the
// handler is left behind, and that is said.
func TestCloseWithStuckHandler(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		job := f.save(1)
		running, release, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
		r := process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			defer close(returned)
			close(running)
			<-release
			return nil, nil
		})
		receive(t, running, "the handler")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, f.Close(ctx), beequeue.ErrUnfinished)
		require.ErrorIs(t, r.wait(), beequeue.ErrUnfinished)
		f.requireState(job.ID, beequeue.StateWaiting)
		close(release)
		receive(t, returned, "the end of the handler")
		f.requireState(job.ID, beequeue.StateWaiting)
	})
}

// A handler that returns just when the grace time ends has its outcome recorded
// or its job handed back, never both, and never neither.
func TestCloseAtTheLastMoment(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		for range 5 {
			f := open(t, s, beequeue.Config{})
			const n = 20
			running := make(chan struct{}, n)
			for i := range n {
				f.save(i)
			}
			grace := 30 * time.Millisecond
			end := make(chan struct{})
			process(t, f.Queue, n, func(context.Context, *beequeue.Job) (any, error) {
				running <- struct{}{}
				<-end
				return nil, nil
			})
			for range n {
				receive(t, running, "the handlers")
			}
			ctx, cancel := context.WithTimeout(context.Background(), grace)
			time.AfterFunc(grace, func() { close(end) })
			err := f.Close(ctx)
			cancel()
			counts, countErr := f.peer(beequeue.Config{}).Counts(bounded(t))
			require.NoError(t, countErr)
			require.EqualValues(t, n, counts.Waiting+counts.Succeeded)
			require.Equal(t, counts.Waiting > 0, err != nil, "%d were handed back: %v", counts.Waiting, err)
		}
	})
}

// Close may be called again and by several; all wait for the end.
func TestCloseTwice(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		f.OnJobSucceeded(func(string, json.RawMessage) {})
		job := f.save(1)
		running, release := make(chan struct{}), make(chan struct{})
		r := process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			close(running)
			<-release
			return nil, nil
		})
		receive(t, running, "the handler")
		errs := make(chan error, 4)
		for range 4 {
			go func() { errs <- f.Close(bounded(t)) }()
		}
		await(t, "Close has begun", func() bool { return !f.IsRunning() })
		require.Empty(t, errs)
		close(release)
		for range 4 {
			require.NoError(t, receive(t, errs, "Close"))
		}
		require.NoError(t, r.wait())
		require.NoError(t, f.Close(bounded(t)))
		f.requireState(job.ID, beequeue.StateSucceeded)
	})
}

// A queue that did nothing, or was never reached, closes at once.
func TestCloseUnused(t *testing.T) {
	t.Parallel()
	queuetest.Within(t, "Close of a queue that did nothing", time.Second, func() time.Duration {
		f := open(t, mini, beequeue.Config{})
		began := time.Now()
		require.NoError(t, f.Close(context.Background()))
		return time.Since(began)
	})
}

// Close ends soon after its deadline if the handlers obey, and not when those that do
// not would be given up.
func TestCloseEndsWithItsHandlers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		queuetest.Within(t, "Close, after its deadline,", 1500*time.Millisecond, func() time.Duration {
			f := open(t, s, beequeue.Config{})
			r, _ := hang(t, f, 2)
			ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
			defer cancel()
			deadline, _ := ctx.Deadline()
			require.ErrorIs(t, f.Close(ctx), beequeue.ErrUnfinished)
			took := time.Since(deadline)
			require.GreaterOrEqual(t, took, time.Duration(0), "the handlers had their time")
			require.ErrorIs(t, r.wait(), beequeue.ErrUnfinished)
			return took
		})
	})
}

// Saves that are under way when Close is called are stored, or their callers
// get an error: what Save says is what is there.
func TestCloseDuringSaves(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
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
		receive(t, first, "a save")
		require.NoError(t, f.Close(bounded(t)))
		savers.Wait()
		slices.Sort(saved)
		waiting := f.waiting()
		slices.Sort(waiting)
		require.Equal(t, saved, waiting)
	})
}

// Close from a callback or a handler of the queue's own must come to an end.
func TestCloseFromInside(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(f *fixture, stop func()){
		"OnSucceeded":    func(f *fixture, stop func()) { f.OnSucceeded(func(*beequeue.Job, json.RawMessage) { stop() }) },
		"OnJobSucceeded": func(f *fixture, stop func()) { f.OnJobSucceeded(func(string, json.RawMessage) { stop() }) },
		"handler":        func(*fixture, func()) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := open(t, mini, beequeue.Config{ShutdownTimeout: 100 * time.Millisecond})
			done := make(chan struct{})
			stop := func() {
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				defer cancel()
				_ = f.Close(ctx)
				close(done)
			}
			set(f, stop)
			if name == "OnJobSucceeded" {
				f.subscribed(1)
			}
			f.save(1)
			r := process(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				if name == "handler" {
					stop()
				}
				return nil, ctx.Err()
			})
			receive(t, done, "Close")
			_ = r.wait()
		})
	}
}

// Wherever a worker is stopped, each job has succeeded or is waiting, also those
// that were taken and not begun.
func TestStopAnywhere(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		const n = 300
		batch := make([]*beequeue.Job, n)
		for i := range batch {
			batch[i] = f.CreateJob(i)
		}
		require.NoError(t, f.SaveAll(bounded(t), batch))
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
			counts, err := f.Counts(bounded(t))
			require.NoError(t, err)
			require.Equal(t, beequeue.Counts{Succeeded: begun.Load(), Waiting: n - begun.Load(), NewestJob: n}, counts)
			if counts.Waiting == 0 {
				return
			}
			stopAt = begun.Load()
		}
	})
}
