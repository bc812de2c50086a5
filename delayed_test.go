package beequeue_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A delayed job never starts before it is due. In an idle worker it starts at once when it
// is due.
func TestDelayedJobStartsInTime(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		started := make(chan time.Time, 1)
		r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
			started <- time.Now()
			return nil, nil
		})
		queuetest.Within(t, "the median of 5 starts after their times", 300*time.Millisecond, func() time.Duration {
			var late []time.Duration
			for _, delay := range []time.Duration{60, 90, 120, 150, 180} {
				due := time.Now().Add(delay * time.Millisecond)
				job := f.Save(nil, func(j *beequeue.Job) { j.DelayUntil(due) })
				at := queuetest.Receive(t, started, "the handler")
				require.False(t, at.Before(due), "%v too early", due.Sub(at))
				late = append(late, at.Sub(due))
				_, err := job.Wait(queuetest.Bounded(t))
				require.NoError(t, err)
			}
			slices.Sort(late)
			return late[len(late)/2]
		})
		require.NoError(t, r.Stop())
	})
}

// A worker hears of a job that is due earlier than the job it waits for.
func TestEarlierDelayedJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		started := make(chan string, 2)
		queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			started <- job.ID
			return nil, nil
		})
		f.Save(nil, func(j *beequeue.Job) { j.SetID("far").DelayUntil(time.Now().Add(time.Hour)) })
		// A worker that has run another job since has seen it.
		f.Save(nil, func(j *beequeue.Job) { j.SetID("now") })
		require.Equal(t, "now", queuetest.Receive(t, started, "the job without delay"))
		queuetest.Within(t, "the start of a job that would be found after 5 s", 3*time.Second, func() time.Duration {
			due := time.Now().Add(100 * time.Millisecond)
			id := f.Save(nil, func(j *beequeue.Job) { j.DelayUntil(due) }).ID
			require.Equal(t, id, queuetest.Receive(t, started, "the job with the shorter delay"))
			return time.Since(due)
		})
		f.RequireState("far", beequeue.StateDelayed)
	})
}

// Delayed jobs run in the order of their due times, whatever the order of saves.
func TestDelayedOrder(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		soon := time.Now().Add(time.Second) // which is not over before they are saved
		var batch []*beequeue.Job
		for _, i := range []int{3, 1, 4, 0, 2} {
			batch = append(batch, f.CreateJob(nil).SetID(strconv.Itoa(i)).DelayUntil(soon.Add(time.Duration(i)*10*time.Millisecond)))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		var ran []string
		raised := make(chan int, 5)
		f.OnRaised(func(n int) { raised <- n })
		all := make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if ran = append(ran, job.ID); len(ran) == 5 {
				close(all)
			}
			return nil, nil
		})
		queuetest.Receive(t, all, "all jobs")
		for n := 0; n < 5; {
			n += queuetest.Receive(t, raised, "OnRaised")
			require.LessOrEqual(t, n, 5)
		}
		require.NoError(t, r.Stop())
		require.Equal(t, []string{"0", "1", "2", "3", "4"}, ran)
	})
}

// Jobs that came due while no worker ran are run as soon as there is a worker. They are more
// than a single script call takes.
func TestDelayedPastDue(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const n = 1100
		batch := make([]*beequeue.Job, n)
		for i := range batch {
			batch[i] = f.CreateJob(i).DelayUntil(time.Now().Add(time.Hour))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		past := make([]string, 0, 2*n)
		for i, job := range batch {
			past = append(past, strconv.Itoa(i+1), job.ID)
		}
		f.Must("ZADD", "delayed", past...)
		var ran []string
		all := make(chan struct{})
		r := queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if ran = append(ran, string(job.Data)); len(ran) == n {
				close(all)
			}
			return nil, nil
		})
		queuetest.Receive(t, all, "all jobs") // one after the other, on a machine that may be busy
		require.NoError(t, r.Stop())
		for i, data := range ran {
			require.Equal(t, strconv.Itoa(i), data)
		}
	})
}

// No delayed job is lost when a worker does not read its channel, or a producer does not
// publish (Node without events). The worker finds the job by looking now and then.
func TestDelayedWithoutMessage(t *testing.T) {
	t.Parallel()
	queuetest.OnReal(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.CreateJob(nil).SetID("quiet")
		started := make(chan string, 2)
		queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			started <- job.ID
			return nil, nil
		})
		f.Save(nil, func(j *beequeue.Job) { j.SetID("now") })
		require.Equal(t, "now", queuetest.Receive(t, started, "the job without delay"))
		f.Must("HSET", "jobs", job.ID, `{"data":{}}`)
		f.Must("ZADD", "delayed", strconv.Itoa(int(time.Now().Add(50*time.Millisecond).UnixMilli())), job.ID)
		require.Equal(t, "quiet", queuetest.Receive(t, started, "the job nobody told of"))
	})
}
