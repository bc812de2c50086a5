package beequeuetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/beequeuetest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	save(t, q, push{Target: "a"}, push{Target: "b"})
	require.NoError(t, q.CreateJob(push{Target: "c"}).Retries(1).Save(t.Context()))
	require.NoError(t, q.CreateJob(push{Target: "later"}).DelayUntil(kit.Now().Add(time.Hour)).Save(t.Context()))

	outcomes := kit.Run(t, q, func(ctx context.Context, job *beequeue.Job) (any, error) {
		var p push
		if err := job.Decode(&p); err != nil {
			return nil, err
		}
		switch p.Target {
		case "b":
			panic("no such target")
		case "c":
			return nil, errOffline
		case "a":
			// A job that a handler saves is run too.
			return p, q.CreateJob(push{Target: "d"}).Save(ctx)
		}
		return nil, nil
	})

	assert.Equal(t, []string{"1 succeeded", "2 failed", "3 retrying", "5 succeeded", "3 failed"}, summary(outcomes))
	assert.JSONEq(t, `{"target":"a"}`, string(outcomes[0].Result))
	var panicked *beequeue.PanicError
	require.ErrorAs(t, outcomes[1].Err, &panicked)
	assert.Equal(t, "no such target", panicked.Value)
	require.ErrorIs(t, outcomes[2].Err, errOffline)
	require.ErrorIs(t, outcomes[4].Err, errOffline)
	assert.Nil(t, outcomes[3].Result)
	assert.Len(t, outcomes[4].Job.Options.Stacktraces, 2)
	beequeuetest.RequireEnqueuedData(t, q, push{Target: "later"})

	assert.Empty(t, kit.Run(t, q, succeed), "nothing is due")
	kit.Advance(time.Hour)
	assert.Equal(t, []string{"4 succeeded"}, summary(kit.Run(t, q, succeed)))
	beequeuetest.RequireNothingEnqueued(t, q)
}

func TestRunOfJobThatIsRemoved(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	save(t, q, push{Target: "a"}, push{Target: "b"})
	outcomes := kit.Run(t, q, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if job.ID == "1" {
			return nil, job.Remove(ctx)
		}
		return nil, nil
	})
	assert.Equal(t, []string{"1 ", "2 succeeded"}, summary(outcomes))
}

// A removed job that was saved again is another run.
func TestRunOfJobThatIsReplaced(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	require.NoError(t, q.CreateJob(nil).SetID("daily").Save(t.Context()))
	replaced := false
	outcomes := kit.Run(t, q, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if replaced {
			return nil, nil
		}
		replaced = true
		return nil, errors.Join(job.Remove(ctx), q.CreateJob(nil).SetID("daily").Save(ctx))
	})
	assert.Equal(t, []string{"daily ", "daily succeeded"}, summary(outcomes))
}

// A handler that ignores its timeout has failed by then, and is waited for.
func TestRunOfStuckHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := beequeuetest.New(t)
		q := kit.Queue("push", beequeue.Config{})
		require.NoError(t, q.CreateJob(nil).Timeout(time.Second).Save(t.Context()))
		outcomes := kit.Run(t, q, func(context.Context, *beequeue.Job) (any, error) {
			<-time.After(time.Minute)
			return nil, nil
		})
		assert.Equal(t, []string{"1 failed"}, summary(outcomes))
		require.ErrorIs(t, outcomes[0].Err, beequeue.ErrTimeout)
	})
}

func TestRunWithoutRecords(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{RemoveOnSuccess: true, RemoveOnFailure: true, NoEvents: true})
	save(t, q, push{Target: "a"})
	assert.Equal(t, []string{"1 failed"}, summary(kit.Run(t, q, offline)))
	save(t, q, push{Target: "a"})
	assert.Equal(t, []string{"2 succeeded"}, summary(kit.Run(t, q, succeed)))
}

// Each Run has its own outcomes only, whichever queue value it is given.
func TestRunsAreApart(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	producer := kit.Queue("push", beequeue.Config{})
	worker := kit.Queue("push", beequeue.Config{})
	other := kit.Queue("mail", beequeue.Config{})
	own, err := beequeue.New(kit.Client(), "push", beequeue.Config{})
	require.NoError(t, err)
	defer func() { assert.NoError(t, own.Close(context.Background())) }()

	var all [][]beequeuetest.Outcome
	for _, q := range []*beequeue.Queue{worker, own, worker} {
		save(t, producer, push{Target: "a"})
		all = append(all, kit.Run(t, q, succeed))
	}
	for i, outcomes := range all {
		assert.Equal(t, []string{fmt.Sprint(i+1, " succeeded")}, summary(outcomes))
	}
	assert.Empty(t, kit.Run(t, other, succeed))
}

func TestRunAll(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	start := kit.Now()
	require.NoError(t, q.CreateJob(nil).DelayUntil(start.Add(time.Hour)).Save(t.Context()))
	require.NoError(t, q.CreateJob(nil).Retries(3).Backoff(beequeue.Exponential, 10*time.Minute).Save(t.Context()))

	var at []time.Duration
	outcomes := kit.RunAll(t, q, func(_ context.Context, job *beequeue.Job) (any, error) {
		at = append(at, kit.Now().Sub(start).Round(time.Minute))
		if job.ID == "2" {
			return nil, errOffline
		}
		return nil, nil
	})
	assert.Equal(t, []string{"2 retrying", "2 retrying", "2 retrying", "1 succeeded", "2 failed"}, summary(outcomes))
	assert.Equal(t, []time.Duration{0, 10 * time.Minute, 30 * time.Minute, time.Hour, 70 * time.Minute}, at)
	beequeuetest.RequireNothingEnqueued(t, q)
}

func TestEndlessJobs(t *testing.T) {
	t.Parallel()
	// 990 jobs, and one that saves itself again after each run.
	open := func(t *testing.T) (*beequeuetest.Kit, *beequeue.Queue) {
		t.Helper()
		kit := beequeuetest.New(t)
		// miniredis takes its time for large sets.
		q := kit.Queue("push", beequeue.Config{RemoveOnSuccess: true})
		jobs := make([]*beequeue.Job, 990)
		for i := range jobs {
			jobs[i] = q.CreateJob(push{Target: "once"})
		}
		require.NoError(t, q.SaveAll(t.Context(), jobs))
		save(t, q, push{Target: "again"})
		return kit, q
	}
	again := func(q *beequeue.Queue, due func() time.Time) beequeue.Handler {
		return func(ctx context.Context, job *beequeue.Job) (any, error) {
			if !strings.Contains(string(job.Data), "again") {
				return nil, nil
			}
			return nil, q.CreateJob(job.Data).DelayUntil(due()).Save(ctx)
		}
	}
	const want = `queue "push" has jobs to run after 1000 runs; the next is job "1001" with data {"target":"again"}`
	t.Run("Run", func(t *testing.T) {
		t.Parallel()
		kit, q := open(t)
		handler := again(q, func() time.Time { return time.Time{} })
		assert.Contains(t, failure(t, func(tb *fakeTB) { kit.Run(tb, q, handler) }), want)
	})
	t.Run("RunAll", func(t *testing.T) {
		t.Parallel()
		kit, q := open(t)
		handler := again(q, func() time.Time { return kit.Now().Add(time.Minute) })
		assert.Contains(t, failure(t, func(tb *fakeTB) { kit.RunAll(tb, q, handler) }), want)
	})
	t.Run("not quite", func(t *testing.T) {
		t.Parallel()
		kit, q := open(t)
		for range 9 {
			save(t, q, push{Target: "once"})
		}
		assert.Len(t, kit.Run(t, q, succeed), 1000)
	})
}

// A handler's FailNow ends the test, not only the handler.
func TestFailNowInHandler(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	save(t, q, push{Target: "a"})
	message := failure(t, func(tb *fakeTB) {
		kit.Run(tb, q, func(context.Context, *beequeue.Job) (any, error) {
			require.Equal(tb, 1, 2)
			return nil, nil
		})
		tb.Errorf("Run returned")
	})
	assert.Contains(t, message, "Not equal")
	assert.Contains(t, message, `the handler of job "1" ended its goroutine`)
	assert.NotContains(t, message, "Run returned")
}
