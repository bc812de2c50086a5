package beequeue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

func TestProcessRefuses(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	for _, run := range []func(context.Context, int, beequeue.Handler) error{f.Process, f.Drain} {
		require.ErrorContains(t, run(queuetest.Bounded(t), 0, queuetest.Succeed), "concurrency 0 is not between 1 and 100000")
		require.ErrorContains(t, run(queuetest.Bounded(t), -1, queuetest.Succeed), "concurrency -1 is not between 1 and 100000")
		require.ErrorContains(t, run(queuetest.Bounded(t), 100_001, queuetest.Succeed), "is not between")
		require.ErrorContains(t, run(queuetest.Bounded(t), 1, nil), "handler is nil")
	}
}

// A queue value has one worker at a time. When the worker has ended, there may be another.
// Another value of the same queue has a worker of its own.
func TestProcessBusy(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Save(1)
		running, release := make(chan struct{}), make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			close(running)
			<-release
			return nil, nil
		})
		queuetest.Receive(t, running, "the handler")
		require.ErrorIs(t, f.Process(queuetest.Bounded(t), 1, queuetest.Succeed), beequeue.ErrBusy)
		require.ErrorIs(t, f.Drain(queuetest.Bounded(t), 1, queuetest.Succeed), beequeue.ErrBusy)
		other := f.Peer(beequeue.Config{})
		require.NoError(t, other.Drain(queuetest.Bounded(t), 1, queuetest.Succeed))
		close(release)
		require.NoError(t, r.Stop())

		job := f.Save(2)
		again := queuetest.Process(t, f.Queue, 1, queuetest.Succeed)
		_, err := job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, again.Stop())
	})
}

// Handlers run at once up to the concurrency, and no further.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const jobs, concurrency = 40, 7
		var batch []*beequeue.Job
		for i := range jobs {
			batch = append(batch, f.CreateJob(i))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		var now, most atomic.Int32
		full := make(chan struct{})
		r := queuetest.Process(t, f.Queue, concurrency, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if n == concurrency {
				select {
				case <-full:
				default:
					close(full)
				}
			}
			select {
			case <-full: // all at once at least one time
			case <-ctx.Done():
			}
			return nil, nil
		})
		queuetest.Receive(t, full, "as many handlers as may run")
		for _, job := range batch {
			_, err := job.Wait(queuetest.Bounded(t))
			require.NoError(t, err)
		}
		require.NoError(t, r.Stop())
		require.EqualValues(t, concurrency, most.Load())
	})
}

// Waiting jobs run in the order of their saves.
func TestOrder(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for i := range 20 {
			f.Save(i)
		}
		var got []string
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			got = append(got, job.ID)
			return nil, nil
		})
		for i, id := range got {
			require.Equal(t, strconv.Itoa(i+1), id)
		}
		require.Len(t, got, 20)
	})
}

// An idle worker hears of a new job at once, instead of looking now and then.
func TestIdleWorkerIsWoken(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		started := make(chan time.Time, 1)
		queuetest.Process(t, f.Queue, 2, func(context.Context, *beequeue.Job) (any, error) {
			started <- time.Now()
			return nil, nil
		})
		queuetest.Within(t, "the start of a job that would be found after 2 s", 500*time.Millisecond, func() time.Duration {
			job := f.Save(nil)
			saved := time.Now()
			took := queuetest.Receive(t, started, "the handler").Sub(saved)
			_, err := job.Wait(queuetest.Bounded(t))
			require.NoError(t, err)
			return took
		})
	})
}

// The result of a handler is stored, and Wait returns it.
func TestResults(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		results := map[string]any{
			"nil": nil, "nil pointer": (*int)(nil), "null": json.RawMessage("null"), "zero": 0, "false": false,
			"text": "é\n", "object": map[string]any{"a": []any{1.5, "b"}}, "empty": "",
		}
		want := map[string]string{
			"nil": "", "nil pointer": "", "null": "", "zero": "0", "false": "false",
			"text": `"é\n"`, "object": `{"a":[1.5,"b"]}`, "empty": `""`,
		}
		jobs := make(map[string]*beequeue.Job)
		for name := range results {
			jobs[name] = f.Save(name)
		}
		queuetest.Drain(t, f.Queue, 3, func(_ context.Context, job *beequeue.Job) (any, error) {
			var name string
			if err := job.Decode(&name); err != nil {
				return nil, err
			}
			return results[name], nil
		})
		for name, job := range jobs {
			got, err := job.Wait(queuetest.Bounded(t))
			require.NoError(t, err, name)
			require.Equal(t, want[name], string(got), name)
			stored := f.Lookup(job.ID)
			require.Equal(t, beequeue.StatusSucceeded, stored.Status)
			require.Equal(t, want[name], string(stored.Result), name)
			require.Equal(t, want[name] == "", strings.Contains(f.Record(job.ID), `"result":null`), name)
		}
	})
}

// A result that is not JSON fails the run, and the job's retries apply.
func TestResultThatCannotBeMarshalled(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	for i, result := range []any{make(chan int), brokenJSON{}, json.RawMessage("{"), panickyJSON{}} {
		job := f.Save(i)
		queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { return result, nil })
		_, err := job.Wait(queuetest.Bounded(t))
		var failed *beequeue.FailedError
		require.ErrorAs(t, err, &failed, "%T", result)
		f.RequireState(job.ID, beequeue.StateFailed)
	}
}

type panickyJSON struct{}

func (panickyJSON) MarshalJSON() ([]byte, error) { panic("cannot marshal this") }

func TestRemoveOnSuccessAndFailure(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for _, config := range []beequeue.Config{
			{RemoveOnSuccess: true}, {RemoveOnFailure: true}, {RemoveOnSuccess: true, RemoveOnFailure: true},
		} {
			f := queuetest.Open(t, s, config)
			good, bad, retried := f.Save("good"), f.Save("bad"), f.Save("bad", func(j *beequeue.Job) { j.Retries(1) })
			runs := 0
			queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
				runs++
				if string(job.Data) == `"bad"` {
					return nil, queuetest.ErrBroken
				}
				return nil, nil
			})
			require.Equal(t, 4, runs)
			for _, c := range []struct {
				job     *beequeue.Job
				removed bool
			}{{good, config.RemoveOnSuccess}, {bad, config.RemoveOnFailure}, {retried, config.RemoveOnFailure}} {
				_, err := f.GetJob(queuetest.Bounded(t), c.job.ID)
				if !c.removed {
					require.NoError(t, err)
					continue
				}
				require.ErrorIs(t, err, beequeue.ErrNotFound)
				require.NotContains(t, f.Places(), c.job.ID)
				_, err = c.job.Wait(queuetest.Bounded(t))
				require.ErrorIs(t, err, beequeue.ErrNotFound, "nothing is left to tell of it")
			}
		}
	})
}

// The handler's context has the values of Process's, and ends with the run.
func TestHandlerContext(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	type key struct{}
	f.Save(1)
	var kept context.Context
	ctx := context.WithValue(queuetest.Bounded(t), key{}, "value")
	require.NoError(t, f.Drain(ctx, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
		kept = ctx
		if ctx.Value(key{}) != "value" {
			return nil, errors.New("no value")
		}
		_, has := ctx.Deadline()
		return has, ctx.Err()
	}))
	require.NotNil(t, kept)
	require.ErrorIs(t, kept.Err(), context.Canceled, "the context must end with the run")
	job := f.Lookup("1")
	require.Equal(t, "false", string(job.Result), "no deadline without a timeout: %v", job.Options.Stacktraces)
}

// The job that a handler gets is complete, and the handler's changes to it are stored.
func TestHandlersJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Save(map[string]int{"n": 1}, func(j *beequeue.Job) { j.SetID("x").Retries(2).Timeout(time.Hour) })
		var tries []int
		queuetest.Drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
			assert.Equal(t, "x", job.ID)
			assert.JSONEq(t, `{"n":1}`, string(job.Data))
			assert.Equal(t, time.Hour, job.Options.Timeout)
			tries = append(tries, job.Options.Retries)
			if err := job.ReportProgress(ctx, len(tries)*10); err != nil {
				return nil, err
			}
			if job.Options.Retries > 0 {
				return nil, fmt.Errorf("try %d", len(tries))
			}
			return "done", nil
		})
		require.Equal(t, []int{2, 1, 0}, tries)
		job := f.Lookup("x")
		require.Equal(t, "30", string(job.Progress))
		require.Equal(t, `"done"`, string(job.Result))
		require.Zero(t, job.Options.Retries)
		require.Equal(t, []string{"try 2", "try 1"}, job.Options.Stacktraces, "the newest first")
	})
}

// Two workers share the jobs, and no job runs twice.
func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const jobs = 200
		var mu sync.Mutex
		runs := make(map[string]int)
		all := make(chan struct{})
		handler := func(_ context.Context, job *beequeue.Job) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			if runs[job.ID]++; len(runs) == jobs {
				close(all)
			}
			return nil, nil
		}
		first := queuetest.Process(t, f.Queue, 4, handler)
		second := queuetest.Process(t, f.Peer(beequeue.Config{}), 4, handler)
		var batch []*beequeue.Job
		for i := range jobs {
			batch = append(batch, f.CreateJob(i))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		queuetest.Receive(t, all, "all jobs")
		require.NoError(t, first.Stop())
		require.NoError(t, second.Stop())
		for id, n := range runs {
			require.Equal(t, 1, n, "runs of job %q", id)
		}
		counts, err := f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Equal(t, beequeue.Counts{Succeeded: jobs, NewestJob: jobs}, counts)
	})
}
