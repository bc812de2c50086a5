package beequeue_test

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// When a job's time is over, its handler's context ends and says why. What the handler then
// returns is recorded.
func TestTimeout(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for name, c := range map[string]struct {
			returns func(ctx context.Context) (any, error)
			state   beequeue.State
			message string
		}{
			"the context's error": {func(ctx context.Context) (any, error) { return nil, ctx.Err() }, beequeue.StateFailed, "job timed out after 30ms"},
			"the cause":           {func(ctx context.Context) (any, error) { return nil, context.Cause(ctx) }, beequeue.StateFailed, "job timed out after 30ms"},
			"an error":            {func(context.Context) (any, error) { return nil, queuetest.ErrBroken }, beequeue.StateFailed, "job timed out after 30ms: broken"},
			"success, though":     {func(context.Context) (any, error) { return "done", nil }, beequeue.StateSucceeded, ""},
		} {
			f := queuetest.Open(t, s, beequeue.Config{})
			ends := make(chan error, 1)
			f.OnFailedForGood(func(_ *beequeue.Job, err error) { ends <- err })
			job := f.Save(name, func(j *beequeue.Job) { j.Timeout(30 * time.Millisecond) })
			var cause, ended error
			var has bool
			queuetest.Drain(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				_, has = ctx.Deadline()
				<-ctx.Done()
				cause, ended = context.Cause(ctx), ctx.Err()
				return c.returns(ctx)
			})
			require.True(t, has, "handlers can see how long they have")
			require.ErrorIs(t, cause, beequeue.ErrTimeout)
			require.ErrorIs(t, ended, context.DeadlineExceeded)
			f.RequireState(job.ID, c.state)
			result, err := job.Wait(queuetest.Bounded(t))
			if c.state == beequeue.StateSucceeded {
				require.NoError(t, err)
				require.Equal(t, `"done"`, string(result))
				continue
			}
			require.ErrorContains(t, err, c.message, name)
			require.Equal(t, []string{c.message}, f.Lookup(job.ID).Options.Stacktraces)
			require.ErrorIs(t, queuetest.Receive(t, ends, "OnFailedForGood"), beequeue.ErrTimeout, name)
		}
	})
}

// A job that timed out is retried only when its handler has returned.
func TestTimeoutIsRetriedAfterReturn(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1, func(j *beequeue.Job) { j.Retries(2).Timeout(20 * time.Millisecond) })
		var now, most, runs atomic.Int32
		r := queuetest.Process(t, f.Queue, 3, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done()
			if runs.Add(1) == 3 {
				return "at last", nil
			}
			// It takes its time, but returns within the grace period.
			late := time.NewTimer(100 * time.Millisecond)
			<-late.C
			return nil, ctx.Err()
		})
		got, err := beequeue.WaitFor[string](queuetest.Bounded(t), job)
		require.NoError(t, err)
		require.Equal(t, "at last", got)
		require.EqualValues(t, 1, most.Load(), "two runs at once")
		require.EqualValues(t, 3, runs.Load())
		require.NoError(t, r.Stop())
	})
}

// A handler that does not return is reported when the grace period is over, and its job is
// retried or failed without it. It keeps its slot, and no other run of the job starts in
// this worker before it returns.
func TestStuckHandler(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		// The second run must be over before either of them, on any machine.
		const timeout, grace = time.Second, time.Second
		f := queuetest.Open(t, s, beequeue.Config{TimeoutGrace: grace})
		job := f.Save("stuck", func(j *beequeue.Job) { j.Retries(1).Timeout(timeout) })
		release := make(chan struct{})
		var now, most, runs atomic.Int32
		retrying := make(chan error, 1)
		f.OnRetrying(func(_ *beequeue.Job, err error) { retrying <- err })
		others := make(chan string, 10)
		r := queuetest.Process(t, f.Queue, 2, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) != `"stuck"` {
				others <- job.ID
				return nil, nil
			}
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			if runs.Add(1) == 1 {
				<-release // whatever its context says
				job.Progress = nil
				return "too late", nil
			}
			return "second run", nil
		})
		err := f.Catch(queuetest.Is(beequeue.ErrStuck))
		require.ErrorIs(t, err, beequeue.ErrTimeout)
		require.ErrorContains(t, err, `job "`+job.ID+`"`)
		require.ErrorIs(t, queuetest.Receive(t, retrying, "OnRetrying"), beequeue.ErrTimeout)
		require.Equal(t, []string{"job timed out after 1s"}, f.Lookup(job.ID).Options.Stacktraces)
		// The job was claimed again at once, while its first run is still there.
		queuetest.Await(t, "the job is put aside", func() bool {
			return len(f.Places()[job.ID]) == 1 && f.Places()[job.ID][0] == "delayed"
		})
		// The other slot works. The stuck slot does not count as free.
		for range 5 {
			id := f.Save("other").ID
			require.Equal(t, id, queuetest.Receive(t, others, "the free slot"))
		}
		require.EqualValues(t, 1, runs.Load())
		close(release)
		got, err := beequeue.WaitFor[string](queuetest.Bounded(t), job)
		require.NoError(t, err)
		require.Equal(t, "second run", got, "what the first run returned is void")
		require.EqualValues(t, 1, most.Load())
		require.NoError(t, r.Stop())
	})
}

// A job without retries whose handler is stuck has failed. The worker has a slot less until
// the handler returns.
func TestStuckHandlerKeepsItsSlot(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{TimeoutGrace: 10 * time.Millisecond})
	job := f.Save("stuck", func(j *beequeue.Job) { j.Timeout(10 * time.Millisecond) })
	release := make(chan struct{})
	started := make(chan string, 2)
	r := queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		started <- job.ID
		if string(job.Data) == `"stuck"` {
			<-release
		}
		return nil, nil
	})
	require.Equal(t, job.ID, queuetest.Receive(t, started, "the stuck handler"))
	_, err := job.Wait(queuetest.Bounded(t))
	require.ErrorContains(t, err, "job timed out after 10ms")
	f.ExpectError(queuetest.Is(beequeue.ErrStuck))
	f.RequireState(job.ID, beequeue.StateFailed)
	next := f.Save("next")
	for range 50 { // round trips, in which the worker could have taken it
		f.RequireState(next.ID, beequeue.StateWaiting)
	}
	require.Empty(t, started)
	close(release)
	require.Equal(t, next.ID, queuetest.Receive(t, started, "the next job"))
	require.NoError(t, r.Stop())
	f.RequireState(job.ID, beequeue.StateFailed)
}

// A timeout so long that adding it to a time overflows is no limit.
func TestTimeoutOfAges(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	jobs := []*beequeue.Job{
		f.Save("go", func(j *beequeue.Job) { j.Timeout(math.MaxInt64) }),
		f.Save("go", func(j *beequeue.Job) { j.Timeout(math.MaxInt64 - time.Second) }),
	}
	f.Plant("node", `{"options":{"timeout":9007199254740991}}`)
	jobs = append(jobs, f.Lookup("node"))
	proceed := make(chan struct{})
	var running atomic.Int32
	r := queuetest.Process(t, f.Queue, len(jobs), func(ctx context.Context, _ *beequeue.Job) (any, error) {
		running.Add(1)
		<-proceed
		return nil, ctx.Err()
	})
	queuetest.Await(t, "all run", func() bool { return int(running.Load()) == len(jobs) })
	for _, job := range jobs {
		f.RequireState(job.ID, beequeue.StateActive)
	}
	close(proceed)
	for _, job := range jobs {
		_, err := job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
	}
	require.NoError(t, r.Stop())
}

// An error from elsewhere that only looks like a timeout is no timeout.
func TestErrorsThatLookLikeTimeouts(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	ends := make(chan error, 1)
	f.OnFailed(func(_ *beequeue.Job, err error) { ends <- err })
	f.Save(1, func(j *beequeue.Job) { j.Timeout(time.Hour) })
	queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { return nil, context.DeadlineExceeded })
	err := queuetest.Receive(t, ends, "OnFailed")
	require.NotErrorIs(t, err, beequeue.ErrTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
