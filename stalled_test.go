package beequeue_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A job is taken back when its worker was silent from one check to the next. It is then the
// next to run.
func TestCheckStalled(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Lose("node", "")
		f.Lose("go", "token")
		f.Save("waits", func(j *beequeue.Job) { j.SetID("waits") })
		var heard []string
		f.OnStalled(func(id string) { heard = append(heard, id) })

		require.Empty(t, f.StallCheck(f.Queue), "the first check takes note of them")
		require.ElementsMatch(t, []string{"node", "go"}, f.List("SMEMBERS", "stalling"))
		ids, err := f.CheckStalled(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Empty(t, ids, "one check an interval")
		ttl := f.Number("PTTL", "stallBlock")
		require.Greater(t, ttl, int64(1))
		require.LessOrEqual(t, ttl, int64(5000), "the interval is the default")

		require.Equal(t, []string{"go", "node"}, f.StallCheck(f.Queue))
		slices.Sort(heard)
		require.Equal(t, []string{"go", "node"}, heard)
		require.Equal(t, "waits", f.Waiting()[0], "they are next")
		require.Empty(t, f.Active())
		require.Empty(t, f.List("HKEYS", "owners"))
		require.Equal(t, "1", f.Text("HGET", "stalls", "go"))
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.Empty(t, f.List("HKEYS", "stalls"), "a run that ended clears the account")
		f.RequireState("go", beequeue.StateSucceeded)
	})
}

// A worker that phoned in for a job, as Node's workers do, keeps it. A worker that lives but
// does not phone in for a job has forgotten it, and loses it.
func TestCheckStalledSparesTheLiving(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Lose("forgotten", "alive")
		f.Must("ZADD", "workers", strconv.Itoa(int(time.Now().Add(time.Hour).UnixMilli())), "alive")
		f.Lose("phones", "")
		f.Lose("ended", "dead")
		f.Must("ZADD", "workers", strconv.Itoa(int(time.Now().Add(-time.Second).UnixMilli())), "dead")
		require.Empty(t, f.StallCheck(f.Queue))
		f.Must("SREM", "stalling", "phones")
		require.Equal(t, []string{"ended", "forgotten"}, f.StallCheck(f.Queue))
		require.Equal(t, []string{"phones"}, f.Active())
		require.Equal(t, []string{"phones"}, f.StallCheck(f.Queue))
	})
}

// A job that was removed while its worker was lost is dropped.
func TestCheckStalledGhost(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Lose("ghost", "token")
		f.Must("HDEL", "jobs", "ghost")
		require.Empty(t, f.StallCheck(f.Queue))
		require.Empty(t, f.StallCheck(f.Queue))
		require.Empty(t, f.Places())
		require.Empty(t, f.List("HKEYS", "owners"))
	})
}

// A job in the snapshot that has finished since is left alone.
func TestCheckStalledFinishedSince(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.Save(1)
	f.Must("SADD", "stalling", job.ID, "nobody")
	queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
	require.Empty(t, f.StallCheck(f.Queue))
	f.RequireState(job.ID, beequeue.StateSucceeded)
}

// A job may be taken back MaxStalls times. Then it has failed, even if it has retries left.
func TestMaxStalls(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for _, c := range []struct{ maxStalls, times int }{{0, 3}, {1, 1}, {5, 5}} {
			f := queuetest.Open(t, s, beequeue.Config{MaxStalls: c.maxStalls})
			var failed []error
			f.OnFailedForGood(func(_ *beequeue.Job, err error) { failed = append(failed, err) })
			f.Lose("killer", "")
			require.Empty(t, f.StallCheck(f.Queue))
			for range c.times {
				require.Equal(t, []string{"killer"}, f.StallCheck(f.Queue))
				f.Must("LREM", "waiting", "0", "killer")
				f.Lose("killer", "")
				require.Empty(t, f.StallCheck(f.Queue), "taken note of")
			}
			waiter := make(chan error, 1)
			waits, ctx := f.Lookup("killer"), queuetest.Bounded(t)
			go func() {
				_, err := waits.Wait(ctx)
				waiter <- err
			}()
			require.Empty(t, f.StallCheck(f.Queue), "it is not waiting again")
			f.RequireState("killer", beequeue.StateFailed)
			require.Len(t, failed, 1)
			require.ErrorIs(t, failed[0], beequeue.ErrStalled)
			require.ErrorContains(t, queuetest.Receive(t, waiter, "Wait"), "stalled "+strconv.Itoa(c.times+1)+" times")
			job := f.Lookup("killer")
			require.Equal(t, 2, job.Options.Retries)
			require.Contains(t, job.Options.Stacktraces[0], "stalled")
			require.Empty(t, f.List("HKEYS", "stalls"))

			// Retry makes it wait again, with a new count of stalls.
			require.NoError(t, job.Retry(queuetest.Bounded(t)))
			queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
			f.RequireState("killer", beequeue.StateSucceeded)
		}
	})
}

func TestMaxStallsFromCount(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{MaxStalls: -1})
	f.Lose("x", "")
	f.Must("HSET", "stalls", "x", "1000")
	require.Empty(t, f.StallCheck(f.Queue))
	require.Equal(t, []string{"x"}, f.StallCheck(f.Queue), "negative is no limit")

	f.Must("LREM", "waiting", "0", "x")
	f.Lose("x", "")
	limited := f.Peer(beequeue.Config{MaxStalls: 4, RemoveOnFailure: true})
	require.Empty(t, f.StallCheck(limited))
	require.Empty(t, f.StallCheck(limited))
	require.Empty(t, f.Places(), "RemoveOnFailure")
}

// A job that stalled too often and whose record cannot be read fails, with its bytes as they
// were.
func TestMaxStallsUnreadable(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	f.Lose("x", "")
	f.Must("HSET", "jobs", "x", "nonsense")
	f.Must("HSET", "stalls", "x", "3")
	f.StallCheck(f.Queue)
	f.StallCheck(f.Queue)
	f.RequireState("x", beequeue.StateFailed)
	require.Equal(t, "nonsense", f.Record("x"))
	_, err := f.GetJob(queuetest.Bounded(t), "x")
	var bad *beequeue.RecordError
	require.ErrorAs(t, err, &bad)
}

// A worker finds the jobs of a lost worker by itself, within two intervals and the time that
// a busy machine adds.
func TestWorkerSweeps(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{StallInterval: 500 * time.Millisecond})
		f.Lose("x", "token")
		stalled := make(chan string, 1)
		f.OnStalled(func(id string) { stalled <- id })
		queuetest.Process(t, f.Queue, 1, queuetest.Succeed)
		require.Equal(t, "x", queuetest.Receive(t, stalled, "OnStalled"))
		_, err := f.Lookup("x").Wait(queuetest.Bounded(t))
		require.NoError(t, err)
	})
}

// A job that Redis says a live worker has, and that the worker does not know of, as after a
// failover, comes back while that worker goes on with others.
func TestForgottenJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		const interval = time.Second
		f := queuetest.Open(t, s, beequeue.Config{StallInterval: interval})
		long := f.Save("long", func(j *beequeue.Job) { j.SetID("long") })
		end := make(chan struct{})
		r := queuetest.Process(t, f.Queue, 10, func(_ context.Context, job *beequeue.Job) (any, error) {
			if job.ID == "long" {
				<-end
			}
			return nil, nil
		})
		queuetest.Await(t, "a run", func() bool { return len(f.Active()) == 1 })
		token, _, _ := strings.Cut(f.Text("HGET", "owners", "long"), "/")
		f.Lose("forgotten", token)
		var began time.Time
		for began = time.Now(); f.Number("SISMEMBER", "succeeded", "forgotten") == 0; {
			require.Less(t, time.Since(began), queuetest.Patience)
			f.Save("load") // each turn renews the worker's lease
			queuetest.Await(t, "the load", func() bool { return f.Number("LLEN", "waiting") == 0 && f.Number("LLEN", "active") <= 2 })
		}
		t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
		close(end)
		_, err := long.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, r.Stop())
	})
}

// A worker with a long interval phones in whenever others may have made a check, and so
// keeps its job beside workers whose interval is short. So do a Drain and a worker that is
// to stop, which make no checks themselves.
func TestLongIntervalBesideShort(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		config := beequeue.Config{StallInterval: 10 * time.Minute, ShutdownTimeout: 10 * time.Minute}
		// A Process shortens a gate that is further ahead than its interval, and looks again
		// after that. Others wait for as long as the gate stays.
		shut := func(ahead string) { f.Must("SET", "stallBlock", "another 1000", "PX", ahead) }
		const long = "3600000"
		for _, mode := range []string{"process", "stopping", "drain"} {
			q, ahead := f.Peer(config), long
			if mode == "drain" {
				ahead = "1000"
			}
			shut(ahead)
			job := f.Save(mode)
			begun, end := make(chan struct{}), make(chan struct{})
			handler := func(context.Context, *beequeue.Job) (any, error) {
				close(begun)
				<-end
				return nil, nil
			}
			var ended func() error
			if mode == "drain" {
				drained, ctx := make(chan error, 1), queuetest.Bounded(t)
				go func() { drained <- q.Drain(ctx, 1, handler) }()
				ended = func() error { return <-drained }
			} else {
				r := queuetest.Process(t, q, 1, handler)
				ended = r.Stop
				<-begun
				if mode == "stopping" {
					r.Cancel()
					ahead = "1000"
				}
			}
			<-begun
			for range 2 {
				f.Must("SADD", "stalling", job.ID)
				queuetest.Await(t, "the worker to phone in, mode "+mode, func() bool {
					shut(ahead)
					return f.Number("SISMEMBER", "stalling", job.ID) == 0
				})
			}
			close(end)
			require.NoError(t, ended(), mode)
			f.RequireState(job.ID, beequeue.StateSucceeded)
			f.CloseQueue(q)
		}
	})
}

// A worker keeps a job that runs for many intervals.
func TestLongRunIsNotStalled(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		const interval = 2 * time.Second // long for a machine that is busy with something else
		f := queuetest.Open(t, s, beequeue.Config{StallInterval: interval})
		job := f.Save(1)
		other := f.Peer(beequeue.Config{StallInterval: interval})
		for _, q := range []*beequeue.Queue{f.Queue, other} {
			q.OnStalled(func(id string) { t.Errorf("job %q was taken back", id) })
		}
		runs := make(chan struct{}, 2)
		handler := func(ctx context.Context, _ *beequeue.Job) (any, error) {
			runs <- struct{}{}
			end := time.NewTimer(3 * interval)
			defer end.Stop()
			select {
			case <-end.C:
				return nil, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		first, second := queuetest.Process(t, f.Queue, 1, handler), queuetest.Process(t, other, 1, handler)
		_, err := job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, first.Stop())
		require.NoError(t, second.Stop())
		require.Len(t, runs, 1)
	})
}
