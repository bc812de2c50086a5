package beequeue_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// Drain runs all jobs there are, and the jobs that they bring about, and returns.
func TestDrain(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed) // nothing

		var batch []*beequeue.Job
		for i := range 60 {
			batch = append(batch, f.CreateJob(i).Retries(1))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		later := f.Save("later", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
		// Due already, though nobody has looked.
		due := f.Save("due", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
		f.Must("ZADD", "delayed", strconv.Itoa(int(time.Now().UnixMilli())), due.ID)
		var raised, runs atomic.Int32
		f.OnRaised(func(n int) { raised.Add(int32(n)) }) //nolint:gosec // a small number
		queuetest.Drain(t, f.Queue, 7, func(ctx context.Context, job *beequeue.Job) (any, error) {
			runs.Add(1)
			switch string(job.Data) {
			case "0": // a job that makes another
				if job.Options.Retries == 1 {
					if err := f.CreateJob("child").Save(ctx); err != nil {
						return nil, err
					}
				}
			case "1", "2":
				return nil, queuetest.ErrBroken
			}
			return nil, nil
		})
		require.EqualValues(t, 60+2+1+1, runs.Load(), "60 jobs, 2 retries, a child, and the one that was due")
		require.EqualValues(t, 1, raised.Load())
		counts, err := f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Equal(t, beequeue.Counts{Succeeded: 60, Failed: 2, Delayed: 1, NewestJob: 63}, counts)
		f.RequireState(later.ID, beequeue.StateDelayed)
	})
}

// Another worker raises a due job just after a Drain has found nothing waiting. Drain runs
// that job nevertheless.
func TestDrainWhileAnotherRaises(t *testing.T) {
	t.Parallel()
	queuetest.OnReal(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		proxy := redistest.StartProxy(t, strings.TrimPrefix(s.URL(t), "redis://"))
		client := queuetest.Dial(t, proxy.URL())
		q, err := beequeue.New(client, f.Name(), beequeue.Config{})
		require.NoError(t, err)
		job := f.Save(1, func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
		proxy.DropReplies(1, func(request []byte) bool { // lets all pass
			raises := queuetest.Runs(request, "raise")
			if raises && f.Number("ZREM", "delayed", job.ID) == 1 {
				f.Must("LPUSH", "waiting", job.ID)
			}
			return false
		})
		queuetest.Drain(t, q, 1, queuetest.Succeed)
		f.RequireState(job.ID, beequeue.StateSucceeded)
		f.CloseQueue(q)
	})
}

// Drain does not wait for retries with a backoff.
func TestDrainLeavesBackoffs(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.Save(1, func(j *beequeue.Job) { j.Retries(1).Backoff(beequeue.Fixed, time.Hour) })
	queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
	f.RequireState(job.ID, beequeue.StateDelayed)
}

// Two drains of a queue share its jobs.
func TestDrainTogether(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var batch []*beequeue.Job
		for i := range 100 {
			batch = append(batch, f.CreateJob(i))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		other := f.Peer(beequeue.Config{})
		var runs atomic.Int32
		errs := make(chan error, 2)
		for _, q := range []*beequeue.Queue{f.Queue, other} {
			go func() {
				errs <- q.Drain(context.Background(), 3, func(context.Context, *beequeue.Job) (any, error) {
					runs.Add(1)
					return nil, nil
				})
			}()
		}
		require.NoError(t, queuetest.Receive(t, errs, "Drain"))
		require.NoError(t, queuetest.Receive(t, errs, "Drain"))
		require.EqualValues(t, 100, runs.Load())
		counts, err := f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		require.EqualValues(t, 100, counts.Succeeded)
	})
}

// The end of its context stops a Drain as it stops a Process. That is no error, and nothing
// is reported.
func TestDrainStopped(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for i := range 10 {
			f.Save(i)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		runs := 0
		require.NoError(t, f.Drain(ctx, 1, func(context.Context, *beequeue.Job) (any, error) {
			if runs++; runs == 3 {
				cancel()
			}
			return nil, nil
		}))
		require.LessOrEqual(t, runs, 4, "the call under way may bring one more")
		require.Len(t, f.Waiting(), 10-runs)

		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, f.Drain(ended, 1, queuetest.Fail))
		require.NoError(t, f.Process(ended, 1, queuetest.Fail))
		require.Len(t, f.Waiting(), 10-runs)
	})
}

// A Drain with two turns under way ends when all is done, including the jobs that were put
// back into waiting meanwhile.
func TestDrainWide(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const n = 500
		jobs := make([]*beequeue.Job, n)
		for i := range jobs {
			jobs[i] = f.CreateJob(i).Retries(2)
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), jobs))
		queuetest.Drain(t, f.Queue, 50, func(_ context.Context, job *beequeue.Job) (any, error) {
			if job.Options.Retries > 0 {
				return nil, queuetest.ErrBroken
			}
			return nil, nil
		})
		counts, err := f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Equal(t, beequeue.Counts{Succeeded: n, NewestJob: n}, counts)
	})
}
