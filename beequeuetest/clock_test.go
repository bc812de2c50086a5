package beequeuetest_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/beequeuetest"
)

// The clock stands still in a Run, so that a short backoff never comes up in it.
func TestShortBackoffWaits(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	require.NoError(t, q.CreateJob(nil).Retries(1).Backoff(beequeue.Fixed, time.Millisecond).Save(t.Context()))
	save(t, q, push{Target: "slow"})
	outcomes := kit.Run(t, q, func(_ context.Context, job *beequeue.Job) (any, error) {
		if job.ID == "1" {
			return nil, errOffline
		}
		<-time.After(20 * time.Millisecond)
		return nil, nil
	})
	assert.Equal(t, []string{"1 retrying", "2 succeeded"}, summary(outcomes))
	kit.Advance(time.Millisecond)
	assert.Equal(t, []string{"1 succeeded"}, summary(kit.Run(t, q, succeed)))
}

// Advancing by a delay makes the job due, whichever clock the delay was added to
// and however the times fall between milliseconds.
func TestAdvanceByDelay(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]func(*beequeuetest.Kit) time.Time{
		"kit's clock":     (*beequeuetest.Kit).Now,
		"process's clock": func(*beequeuetest.Kit) time.Time { return time.Now() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kit := beequeuetest.New(t)
			q := kit.Queue("push", beequeue.Config{})
			for range 20 {
				require.NoError(t, q.CreateJob(nil).DelayUntil(now(kit).Add(time.Hour)).Save(t.Context()))
				kit.Advance(time.Hour)
				assert.Len(t, kit.Run(t, q, succeed), 1)
			}
		})
	}
}

// A time between the process's clock and the kit's: delayed, and due at once.
func TestDelayUntilBetweenTheClocks(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	kit.Advance(time.Hour)
	require.NoError(t, q.CreateJob(nil).DelayUntil(time.Now().Add(time.Minute)).Save(t.Context()))
	require.NoError(t, q.CreateJob(nil).DelayUntil(time.Now().Add(-time.Minute)).Save(t.Context()))
	counts, err := q.Counts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, beequeue.Counts{Waiting: 1, Delayed: 1, NewestJob: 2}, counts)
	assert.Equal(t, []string{"2 succeeded", "1 succeeded"}, summary(kit.Run(t, q, succeed)))
}

func TestAdvanceMovesTTLs(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	client := kit.Client()
	set := client.B().Set().Key("k").Value("v").Ex(time.Minute).Build()
	require.NoError(t, client.Do(t.Context(), set).Error())
	kit.Advance(30 * time.Second)
	assert.True(t, kit.Redis().Exists("k"))
	kit.Advance(30 * time.Second)
	assert.False(t, kit.Redis().Exists("k"))
}

// A worker that waits for a delayed job hears of Advance.
func TestAdvanceWakesProcess(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	job := q.CreateJob(push{Target: "a"}).DelayUntil(kit.Now().Add(time.Hour)).Retries(1).Backoff(beequeue.Fixed, time.Hour)
	require.NoError(t, job.Save(t.Context()))

	var once sync.Once
	retrying := make(chan struct{})
	q.OnRetrying(func(*beequeue.Job, error) { close(retrying) })
	processed := make(chan error, 1)
	go func() {
		processed <- q.Process(t.Context(), 2, func(context.Context, *beequeue.Job) (any, error) {
			var err error
			once.Do(func() { err = errOffline })
			return 7, err
		})
	}()
	kit.Advance(time.Hour)
	<-retrying
	kit.Advance(time.Hour)
	n, err := beequeue.WaitFor[int](t.Context(), job)
	require.NoError(t, err)
	assert.Equal(t, 7, n)
	require.NoError(t, q.Close(t.Context()))
	require.NoError(t, <-processed)
}

func TestBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := beequeuetest.New(t)
		q := kit.Queue("push", beequeue.Config{})
		save(t, q, push{Target: "a"})
		require.NoError(t, q.CreateJob(nil).DelayUntil(time.Now().Add(time.Hour)).Save(t.Context()))
		assert.Equal(t, []string{"1 succeeded"}, summary(kit.Run(t, q, succeed)))
		kit.Advance(time.Hour - time.Millisecond)
		assert.Empty(t, kit.Run(t, q, succeed))
		<-time.After(time.Millisecond) // the bubble's clock moves the kit's
		assert.Equal(t, []string{"2 succeeded"}, summary(kit.Run(t, q, succeed)))
		require.NoError(t, q.CreateJob(nil).Timeout(time.Minute).Save(t.Context()))
		outcomes := kit.RunAll(t, q, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		assert.Equal(t, []string{"3 failed"}, summary(outcomes))
		require.ErrorIs(t, outcomes[0].Err, beequeue.ErrTimeout)
	})
}

// In a bubble, a whole worker runs by the bubble's clock: delays, backoffs and
// timeouts come up when they should, without waiting.
func TestBubbleProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := beequeuetest.New(t)
		q := kit.Queue("push", beequeue.Config{})
		start := time.Now()
		job := q.CreateJob(nil).DelayUntil(start.Add(time.Minute)).Timeout(10*time.Second).
			Retries(2).Backoff(beequeue.Fixed, 20*time.Second)
		require.NoError(t, job.Save(t.Context()))

		var at []time.Duration
		go func() {
			err := q.Process(t.Context(), 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				at = append(at, time.Since(start).Round(time.Second))
				if len(at) < 3 {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return "sent", nil
			})
			assert.NoError(t, err)
		}()
		result, err := job.Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `"sent"`, string(result))
		assert.Equal(t, []time.Duration{60 * time.Second, 90 * time.Second, 120 * time.Second}, at)

		// Advance works on top.
		job = q.CreateJob(nil).DelayUntil(kit.Now().Add(24 * time.Hour))
		require.NoError(t, job.Save(t.Context()))
		before := time.Now()
		synctest.Wait()
		kit.Advance(24 * time.Hour)
		_, err = job.Wait(t.Context())
		require.NoError(t, err)
		assert.Less(t, time.Since(before), time.Second)
	})
}
