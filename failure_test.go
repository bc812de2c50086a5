package beequeue_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A job is run once, and again for each of its retries. Then it has failed.
func TestRetries(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for retries := range 4 {
			job := f.Save(retries, func(j *beequeue.Job) { j.Retries(retries) })
			runs := 0
			queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
				runs++
				want := beequeue.StatusRetrying
				if runs == 1 {
					want = beequeue.StatusCreated
				}
				if job.Status != want {
					return nil, fmt.Errorf("%w: status is %q", beequeue.ErrNoRetry, job.Status)
				}
				return nil, queuetest.ErrBroken
			})
			require.Equal(t, retries+1, runs)
			f.RequireState(job.ID, beequeue.StateFailed)
			stored := f.Lookup(job.ID)
			require.Len(t, stored.Options.Stacktraces, runs)
			require.Zero(t, stored.Options.Retries)
			require.Equal(t, beequeue.StatusFailed, stored.Status)
		}
	})
}

// A job that succeeds at last keeps the stacktraces of its earlier runs.
func TestRetrySucceeds(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1, func(j *beequeue.Job) { j.Retries(5).Backoff(beequeue.Immediate, 0) })
		runs := 0
		queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			if runs++; runs < 3 {
				return nil, queuetest.ErrBroken
			}
			return runs, nil
		})
		got, err := beequeue.WaitFor[int](queuetest.Bounded(t), job)
		require.NoError(t, err)
		require.Equal(t, 3, got)
		stored := f.Lookup(job.ID)
		require.Equal(t, 3, stored.Options.Retries)
		require.Equal(t, []string{"broken", "broken"}, stored.Options.Stacktraces)
	})
}

// Between tries a job is in delayed, for as long as its backoff says.
func TestBackoff(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		own := func(j *beequeue.Job) time.Duration {
			j.Options.Backoff.Delay += 25 * time.Millisecond
			return j.Options.Backoff.Delay
		}
		f := queuetest.Open(t, s, beequeue.Config{Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{"own": own}})
		ms := time.Millisecond
		for strategy, c := range map[beequeue.Strategy]struct {
			delay  time.Duration
			waits  []time.Duration
			stored time.Duration // delay of the record in the end
		}{
			beequeue.Fixed:       {40 * ms, []time.Duration{40 * ms, 40 * ms, 40 * ms}, 40 * ms},
			beequeue.Exponential: {30 * ms, []time.Duration{30 * ms, 60 * ms, 120 * ms}, 240 * ms},
			"own":                {10 * ms, []time.Duration{35 * ms, 60 * ms, 85 * ms}, 85 * ms},
		} {
			queuetest.Within(t, string(strategy)+" waits longer than it should by", 3*time.Second, func() (late time.Duration) {
				job := f.Save(strategy, func(j *beequeue.Job) { j.Retries(3).Backoff(strategy, c.delay) })
				var starts, ends []time.Time
				r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
					starts = append(starts, time.Now())
					defer func() { ends = append(ends, time.Now()) }()
					return nil, queuetest.ErrBroken
				})
				_, err := job.Wait(queuetest.Bounded(t))
				require.ErrorContains(t, err, "broken")
				require.NoError(t, r.Stop())
				require.Len(t, starts, 4, "%s", strategy)
				for i, want := range c.waits {
					got := starts[i+1].Sub(ends[i])
					require.GreaterOrEqual(t, got, want-ms, "%s: wait %d is too short", strategy, i)
					late = max(late, got-want)
				}
				require.Equal(t, c.stored, f.Lookup(job.ID).Options.Backoff.Delay, strategy)
				return late
			})
		}
	})
}

// The time of a retry is the server's, from the end of the run.
func TestBackoffIsInDelayed(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1, func(j *beequeue.Job) { j.Retries(1).Backoff(beequeue.Fixed, time.Hour) })
		before := time.Now()
		queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
		after := time.Now()
		f.RequireState(job.ID, beequeue.StateDelayed)
		due, err := f.Cmd("ZSCORE", "delayed", job.ID).AsInt64()
		require.NoError(t, err)
		require.GreaterOrEqual(t, due, before.Add(time.Hour).UnixMilli()-1)
		require.LessOrEqual(t, due, after.Add(time.Hour).UnixMilli()+1)
		require.Equal(t, beequeue.StatusRetrying, f.Lookup(job.ID).Status)
	})
}

// A strategy of your own that gives 0 or less retries at once.
func TestOwnBackoffNegative(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{
		"minus": func(*beequeue.Job) time.Duration { return -time.Hour },
	}})
	f.Save(1, func(j *beequeue.Job) { j.Retries(2).Backoff("minus", time.Second) })
	runs := 0
	queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { runs++; return nil, queuetest.ErrBroken })
	require.Equal(t, 3, runs)
}

// Another process may use a strategy that this queue does not know. Then the job fails for
// good and says why.
func TestUnknownBackoff(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Plant("odd", `{"data":{},"options":{"timestamp":1,"stacktraces":[],"retries":3,"backoff":{"strategy":"odd","delay":1}},"status":"created"}`)
		runs := 0
		queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { runs++; return nil, queuetest.ErrBroken })
		require.Equal(t, 1, runs)
		f.RequireState("odd", beequeue.StateFailed)
		_, err := f.Lookup("odd").Wait(queuetest.Bounded(t))
		require.ErrorContains(t, err, "broken")
		require.ErrorContains(t, err, `unknown backoff strategy "odd"`)

		// The strategy does not matter if the job succeeds, or has no retries left.
		f.Plant("fine", `{"options":{"backoff":{"strategy":"odd","delay":1}}}`)
		queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
		require.Equal(t, []string{"broken"}, f.Lookup("fine").Options.Stacktraces)
	})
}

func TestErrNoRetry(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1, func(j *beequeue.Job) { j.Retries(3) })
		runs := 0
		queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			runs++
			return nil, fmt.Errorf("address is gone: %w", beequeue.ErrNoRetry)
		})
		require.Equal(t, 1, runs)
		f.RequireState(job.ID, beequeue.StateFailed)
		require.Equal(t, 3, f.Lookup(job.ID).Options.Retries, "they stay as they were")
		_, err := job.Wait(queuetest.Bounded(t))
		require.ErrorContains(t, err, "address is gone: not retryable")
	})
}

// A handler that panics with any value, or ends its goroutine, fails its job. The worker
// goes on.
func TestPanics(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var mapping map[string]int
		for name, c := range map[string]struct {
			do      func()
			message string
			is      error
		}{
			"text":     {func() { panic("oh no") }, "panic: oh no", nil},
			"error":    {func() { panic(queuetest.ErrBroken) }, "panic: broken", queuetest.ErrBroken},
			"runtime":  {func() { mapping["x"] = 1 }, "panic: assignment to entry in nil map", nil},
			"no retry": {func() { panic(fmt.Errorf("bad: %w", beequeue.ErrNoRetry)) }, "panic: bad: not retryable", beequeue.ErrNoRetry},
			"nil":      {func() { panic(nil) }, "panic: panic called with nil argument", nil},
			"goexit":   {runtime.Goexit, "runtime.Goexit called", nil},
		} {
			var got error
			heard := make(chan struct{})
			q := f.Peer(beequeue.Config{})
			q.OnFailedForGood(func(_ *beequeue.Job, err error) { got = err; close(heard) })
			job := f.Save(name)
			queuetest.Drain(t, q, 1, func(context.Context, *beequeue.Job) (any, error) { c.do(); return nil, nil })
			queuetest.Receive(t, heard, "OnFailedForGood")
			var p *beequeue.PanicError
			require.ErrorAs(t, got, &p, name)
			require.ErrorContains(t, got, c.message, name)
			if c.is != nil {
				require.ErrorIs(t, got, c.is, name)
			}
			f.RequireState(job.ID, beequeue.StateFailed)
			stack := f.Lookup(job.ID).Options.Stacktraces[0]
			require.Contains(t, stack, c.message, name)
			require.Contains(t, stack, "goroutine ", name)
			require.Contains(t, stack, "failure_test.go", "%s: the stack leads to the handler", name)
			_, err := job.Wait(queuetest.Bounded(t))
			var failed *beequeue.FailedError
			require.ErrorAs(t, err, &failed)
			require.NotContains(t, failed.Message, "goroutine ", "the stack is not part of the message")
			require.Equal(t, stack, failed.Stack)
		}
	})
}

func TestPanicIsRetried(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.Save(1, func(j *beequeue.Job) { j.Retries(1) })
	runs := 0
	queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
		if runs++; runs == 1 {
			panic("once")
		}
		return nil, nil
	})
	f.RequireState(job.ID, beequeue.StateSucceeded)
}

// An error whose own methods panic, for example a nil pointer returned as an error, is a
// failure like any other. So is a backoff strategy that panics.
func TestErrorsThatPanic(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{
		"panics": func(*beequeue.Job) time.Duration { panic("no idea") },
	}})
	pointer := f.Save("pointer", func(j *beequeue.Job) { j.Retries(1) })
	queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
		var err *customError
		return nil, err
	})
	f.RequireState(pointer.ID, beequeue.StateFailed)
	require.Len(t, f.Lookup(pointer.ID).Options.Stacktraces, 2)

	backoff := f.Save("backoff", func(j *beequeue.Job) { j.Retries(1).Backoff("panics", time.Second) })
	queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
	f.RequireState(backoff.ID, beequeue.StateFailed)
	require.Contains(t, f.Lookup(backoff.ID).Options.Stacktraces[0], "no idea")
}

// customError is an error whose Error method panics on nil.
type customError struct{ text string }

func (e *customError) Error() string { return e.text }

// Callbacks get the errors of other packages as they are.
func TestErrorsReachCallbacks(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	got := make(chan error, 1)
	f.OnFailed(func(_ *beequeue.Job, err error) { got <- err })
	f.Save(1)
	cause := &customError{text: "gone"}
	queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { return nil, fmt.Errorf("send: %w", cause) })
	var custom *customError
	require.ErrorAs(t, queuetest.Receive(t, got, "OnFailed"), &custom)
	require.Same(t, cause, custom)
}

// A handler may change its job. A field that is not JSON is not stored, and is reported.
func TestHandlerSpoilsItsJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for i, spoil := range []func(*beequeue.Job){
			func(j *beequeue.Job) { j.Data = []byte("{") },
			func(j *beequeue.Job) { j.Data = nil },
			func(j *beequeue.Job) { j.Progress = []byte("{") },
		} {
			job := f.Save(i)
			queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
				spoil(job)
				return "done", nil
			})
			f.ExpectError(func(err error) bool { return strings.Contains(err.Error(), "set by the handler is not JSON") })
			stored := f.Lookup(job.ID)
			require.Equal(t, strconv.Itoa(i), string(stored.Data))
			require.Equal(t, `"done"`, string(stored.Result))
		}
		// A handler cannot change the id.
		job := f.Save("id")
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			job.ID = "another"
			return nil, nil
		})
		f.RequireState(job.ID, beequeue.StateSucceeded)
		require.Len(t, f.Places(), 4)
	})
}
