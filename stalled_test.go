package beequeue_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// lose puts a job in active as a worker does that is lost then: without owner,
// as Node's, or with one whose lease has ended.
func (f *fixture) lose(id, owner string) {
	f.t.Helper()
	f.must("HSET", "jobs", id, `{"data":{},"options":{"timestamp":1,"stacktraces":[],"retries":2},"status":"created"}`)
	f.must("LPUSH", "active", id)
	if owner != "" {
		f.must("HSET", "owners", id, owner+"/7")
	}
}

// check looks for stalled jobs although it was done lately.
func (f *fixture) check(q *beequeue.Queue) []string {
	f.t.Helper()
	f.must("DEL", "stallBlock")
	ids, err := q.CheckStalled(bounded(f.t))
	require.NoError(f.t, err)
	slices.Sort(ids)
	return ids
}

// A job is taken back when its worker was silent from one check to the next,
// and comes before what waits.
func TestCheckStalled(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		f.lose("node", "")
		f.lose("go", "token")
		f.save("waits", func(j *beequeue.Job) { j.SetID("waits") })
		var heard []string
		f.OnStalled(func(id string) { heard = append(heard, id) })

		require.Empty(t, f.check(f.Queue), "the first check takes note of them")
		require.ElementsMatch(t, []string{"node", "go"}, f.list("SMEMBERS", "stalling"))
		ids, err := f.CheckStalled(bounded(t))
		require.NoError(t, err)
		require.Empty(t, ids, "one check an interval")
		ttl := f.number("PTTL", "stallBlock")
		require.Greater(t, ttl, int64(1))
		require.LessOrEqual(t, ttl, int64(5000), "the interval is the default")

		require.Equal(t, []string{"go", "node"}, f.check(f.Queue))
		slices.Sort(heard)
		require.Equal(t, []string{"go", "node"}, heard)
		require.Equal(t, "waits", f.waiting()[0], "they are next")
		require.Empty(t, f.active())
		require.Empty(t, f.list("HKEYS", "owners"))
		require.Equal(t, "1", f.cmdText("HGET", "stalls", "go"))
		drain(t, f.Queue, 1, succeed)
		require.Empty(t, f.list("HKEYS", "stalls"), "a run that ended clears the account")
		f.requireState("go", beequeue.StateSucceeded)
	})
}

// A worker with a standing lease keeps its jobs, also without phoning in for
// them; one that phoned in, as Node does, keeps the job.
func TestCheckStalledSparesTheLiving(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		f.lose("leased", "alive")
		f.must("ZADD", "workers", itoa(int(time.Now().Add(time.Hour).UnixMilli())), "alive")
		f.lose("phones", "")
		f.lose("ended", "dead")
		f.must("ZADD", "workers", itoa(int(time.Now().Add(-time.Second).UnixMilli())), "dead")
		require.Empty(t, f.check(f.Queue))
		f.must("SREM", "stalling", "phones")
		require.Equal(t, []string{"ended"}, f.check(f.Queue))
		require.ElementsMatch(t, []string{"leased", "phones"}, f.active())
		require.Equal(t, "alive/7", f.cmdText("HGET", "owners", "leased"))
		f.must("DEL", "workers")
		require.Equal(t, []string{"leased", "phones"}, f.check(f.Queue))
	})
}

// A job that was removed while its worker was lost is dropped.
func TestCheckStalledGhost(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		f.lose("ghost", "token")
		f.must("HDEL", "jobs", "ghost")
		require.Empty(t, f.check(f.Queue))
		require.Empty(t, f.check(f.Queue))
		require.Empty(t, f.places())
		require.Empty(t, f.list("HKEYS", "owners"))
	})
}

// A job that is in the snapshot but has finished since is let be.
func TestCheckStalledFinishedSince(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	job := f.save(1)
	f.must("SADD", "stalling", job.ID, "nobody")
	drain(t, f.Queue, 1, succeed)
	require.Empty(t, f.check(f.Queue))
	f.requireState(job.ID, beequeue.StateSucceeded)
}

// A job may be taken back MaxStalls times; then it has failed, whatever retries
// it has left.
func TestMaxStalls(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		for _, c := range []struct{ maxStalls, times int }{{0, 3}, {1, 1}, {5, 5}} {
			f := open(t, s, beequeue.Config{MaxStalls: c.maxStalls})
			var failed []error
			f.OnFailedForGood(func(_ *beequeue.Job, err error) { failed = append(failed, err) })
			f.lose("killer", "")
			require.Empty(t, f.check(f.Queue))
			for range c.times {
				require.Equal(t, []string{"killer"}, f.check(f.Queue))
				f.must("LREM", "waiting", "0", "killer")
				f.lose("killer", "")
				require.Empty(t, f.check(f.Queue), "taken note of")
			}
			waiter := make(chan error, 1)
			waits, ctx := f.lookup("killer"), bounded(t)
			go func() {
				_, err := waits.Wait(ctx)
				waiter <- err
			}()
			require.Empty(t, f.check(f.Queue), "it is not waiting again")
			f.requireState("killer", beequeue.StateFailed)
			require.Len(t, failed, 1)
			require.ErrorIs(t, failed[0], beequeue.ErrStalled)
			require.ErrorContains(t, receive(t, waiter, "Wait"), "stalled "+itoa(c.times+1)+" times")
			job := f.lookup("killer")
			require.Equal(t, 2, job.Options.Retries)
			require.Contains(t, job.Options.Stacktraces[0], "stalled")
			require.Empty(t, f.list("HKEYS", "stalls"))

			// By hand it can be tried again, with a new account.
			require.NoError(t, job.Retry(bounded(t)))
			drain(t, f.Queue, 1, succeed)
			f.requireState("killer", beequeue.StateSucceeded)
		}
	})
}

func TestMaxStallsFromCount(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{MaxStalls: -1})
	f.lose("x", "")
	f.must("HSET", "stalls", "x", "1000")
	require.Empty(t, f.check(f.Queue))
	require.Equal(t, []string{"x"}, f.check(f.Queue), "negative is no limit")

	f.must("LREM", "waiting", "0", "x")
	f.lose("x", "")
	limited := f.peer(beequeue.Config{MaxStalls: 4, RemoveOnFailure: true})
	require.Empty(t, f.check(limited))
	require.Empty(t, f.check(limited))
	require.Empty(t, f.places(), "RemoveOnFailure")
}

// A job that stalled too often and cannot even be read fails, with its bytes as
// they were.
func TestMaxStallsUnreadable(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	f.lose("x", "")
	f.must("HSET", "jobs", "x", "nonsense")
	f.must("HSET", "stalls", "x", "3")
	f.check(f.Queue)
	f.check(f.Queue)
	f.requireState("x", beequeue.StateFailed)
	require.Equal(t, "nonsense", f.record("x"))
	_, err := f.GetJob(bounded(t), "x")
	var bad *beequeue.RecordError
	require.ErrorAs(t, err, &bad)
}

// A worker finds the jobs of a lost one by itself, within two intervals and
// what a busy machine adds.
func TestWorkerSweeps(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{StallInterval: 500 * time.Millisecond})
		f.lose("x", "token")
		stalled := make(chan string, 1)
		f.OnStalled(func(id string) { stalled <- id })
		process(t, f.Queue, 1, succeed)
		require.Equal(t, "x", receive(t, stalled, "OnStalled"))
		_, err := f.lookup("x").Wait(bounded(t))
		require.NoError(t, err)
	})
}

// A job that runs for many intervals stays its worker's.
func TestLongRunIsNotStalled(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		const interval = 2 * time.Second // long for a machine that is busy with something else
		f := open(t, s, beequeue.Config{StallInterval: interval})
		job := f.save(1)
		other := f.peer(beequeue.Config{StallInterval: interval})
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
		first, second := process(t, f.Queue, 1, handler), process(t, other, 1, handler)
		_, err := job.Wait(bounded(t))
		require.NoError(t, err)
		require.NoError(t, first.stop())
		require.NoError(t, second.stop())
		require.Len(t, runs, 1)
	})
}
