package beequeue_test

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// When a job's time is over, its handler's context ends and says why; what the
// handler then returns counts.
func TestTimeout(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		for name, c := range map[string]struct {
			returns func(ctx context.Context) (any, error)
			state   beequeue.State
			message string
		}{
			"the context's error": {func(ctx context.Context) (any, error) { return nil, ctx.Err() }, beequeue.StateFailed, "job timed out after 30ms"},
			"the cause":           {func(ctx context.Context) (any, error) { return nil, context.Cause(ctx) }, beequeue.StateFailed, "job timed out after 30ms"},
			"an error":            {func(context.Context) (any, error) { return nil, errBroken }, beequeue.StateFailed, "job timed out after 30ms: broken"},
			"success, though":     {func(context.Context) (any, error) { return "done", nil }, beequeue.StateSucceeded, ""},
		} {
			f := open(t, s, beequeue.Config{})
			ends := make(chan error, 1)
			f.OnFailedForGood(func(_ *beequeue.Job, err error) { ends <- err })
			job := f.save(name, func(j *beequeue.Job) { j.Timeout(30 * time.Millisecond) })
			var cause, ended error
			var has bool
			drain(t, f.Queue, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				_, has = ctx.Deadline()
				<-ctx.Done()
				cause, ended = context.Cause(ctx), ctx.Err()
				return c.returns(ctx)
			})
			require.True(t, has, "handlers can see how long they have")
			require.ErrorIs(t, cause, beequeue.ErrTimeout)
			require.ErrorIs(t, ended, context.DeadlineExceeded)
			f.requireState(job.ID, c.state)
			result, err := job.Wait(bounded(t))
			if c.state == beequeue.StateSucceeded {
				require.NoError(t, err)
				require.Equal(t, `"done"`, string(result))
				continue
			}
			require.ErrorContains(t, err, c.message, name)
			require.Equal(t, []string{c.message}, f.lookup(job.ID).Options.Stacktraces)
			require.ErrorIs(t, receive(t, ends, "OnFailedForGood"), beequeue.ErrTimeout, name)
		}
	})
}

// A job that timed out is retried only when its handler has returned.
func TestTimeoutIsRetriedAfterReturn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		job := f.save(1, func(j *beequeue.Job) { j.Retries(2).Timeout(20 * time.Millisecond) })
		var now, most, runs atomic.Int32
		r := process(t, f.Queue, 3, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done()
			if runs.Add(1) == 3 {
				return "at last", nil
			}
			// It takes its time, but returns within the grace time.
			late := time.NewTimer(100 * time.Millisecond)
			<-late.C
			return nil, ctx.Err()
		})
		got, err := beequeue.WaitFor[string](bounded(t), job)
		require.NoError(t, err)
		require.Equal(t, "at last", got)
		require.EqualValues(t, 1, most.Load(), "two runs at once")
		require.EqualValues(t, 3, runs.Load())
		require.NoError(t, r.stop())
	})
}

// A handler that does not return is reported when the grace time is over, and
// its job is retried or failed without it; but it keeps its slot, and no other
// run of the job starts in this worker before it returns.
func TestStuckHandler(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		// The second run has to be over before either of them, on any machine.
		const timeout, grace = time.Second, time.Second
		f := open(t, s, beequeue.Config{TimeoutGrace: grace})
		job := f.save("stuck", func(j *beequeue.Job) { j.Retries(1).Timeout(timeout) })
		release := make(chan struct{})
		var now, most, runs atomic.Int32
		retrying := make(chan error, 1)
		f.OnRetrying(func(_ *beequeue.Job, err error) { retrying <- err })
		others := make(chan string, 10)
		r := process(t, f.Queue, 2, func(_ context.Context, job *beequeue.Job) (any, error) {
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
		err := f.catch(is(beequeue.ErrStuck))
		require.ErrorIs(t, err, beequeue.ErrTimeout)
		require.ErrorContains(t, err, `job "`+job.ID+`"`)
		require.ErrorIs(t, receive(t, retrying, "OnRetrying"), beequeue.ErrTimeout)
		require.Equal(t, []string{"job timed out after 1s"}, f.lookup(job.ID).Options.Stacktraces)
		// Its turn came again at once, while the first run is still there.
		await(t, "the job is put aside", func() bool {
			return len(f.places()[job.ID]) == 1 && f.places()[job.ID][0] == "delayed"
		})
		// The other slot works, the stuck one does not count as free.
		for range 5 {
			id := f.save("other").ID
			require.Equal(t, id, receive(t, others, "the free slot"))
		}
		require.EqualValues(t, 1, runs.Load())
		close(release)
		got, err := beequeue.WaitFor[string](bounded(t), job)
		require.NoError(t, err)
		require.Equal(t, "second run", got, "what the first run returned is void")
		require.EqualValues(t, 1, most.Load())
		require.NoError(t, r.stop())
	})
}

// A stuck handler of a job without retries: it has failed, and the worker has
// one slot less until the handler returns.
func TestStuckHandlerKeepsItsSlot(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{TimeoutGrace: 10 * time.Millisecond})
	job := f.save("stuck", func(j *beequeue.Job) { j.Timeout(10 * time.Millisecond) })
	release := make(chan struct{})
	started := make(chan string, 2)
	r := process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		started <- job.ID
		if string(job.Data) == `"stuck"` {
			<-release
		}
		return nil, nil
	})
	require.Equal(t, job.ID, receive(t, started, "the stuck handler"))
	_, err := job.Wait(bounded(t))
	require.ErrorContains(t, err, "job timed out after 10ms")
	f.expectError(is(beequeue.ErrStuck))
	f.requireState(job.ID, beequeue.StateFailed)
	next := f.save("next")
	for range 50 { // round trips, in which the worker could have taken it
		f.requireState(next.ID, beequeue.StateWaiting)
	}
	require.Empty(t, started)
	close(release)
	require.Equal(t, next.ID, receive(t, started, "the next job"))
	require.NoError(t, r.stop())
	f.requireState(job.ID, beequeue.StateFailed)
}

// A time so long that it cannot be added to is no limit.
func TestTimeoutOfAges(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	jobs := []*beequeue.Job{
		f.save("go", func(j *beequeue.Job) { j.Timeout(math.MaxInt64) }),
		f.save("go", func(j *beequeue.Job) { j.Timeout(math.MaxInt64 - time.Second) }),
	}
	f.plant("node", `{"options":{"timeout":9007199254740991}}`)
	jobs = append(jobs, f.lookup("node"))
	proceed := make(chan struct{})
	var running atomic.Int32
	r := process(t, f.Queue, len(jobs), func(ctx context.Context, _ *beequeue.Job) (any, error) {
		running.Add(1)
		<-proceed
		return nil, ctx.Err()
	})
	await(t, "all run", func() bool { return int(running.Load()) == len(jobs) })
	for _, job := range jobs {
		f.requireState(job.ID, beequeue.StateActive)
	}
	close(proceed)
	for _, job := range jobs {
		_, err := job.Wait(bounded(t))
		require.NoError(t, err)
	}
	require.NoError(t, r.stop())
}

// An error from elsewhere that merely looks like a timeout is no timeout.
func TestErrorsThatLookLikeTimeouts(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	ends := make(chan error, 1)
	f.OnFailed(func(_ *beequeue.Job, err error) { ends <- err })
	f.save(1, func(j *beequeue.Job) { j.Timeout(time.Hour) })
	drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { return nil, context.DeadlineExceeded })
	err := receive(t, ends, "OnFailed")
	require.NotErrorIs(t, err, beequeue.ErrTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
