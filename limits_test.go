package beequeue_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, config := range []beequeue.Config{{MaxData: -1}, {MaxID: -1}, {MaxWaiting: -1}} {
		_, err := beequeue.New(queuetest.Open(t, queuetest.Mini, beequeue.Config{}).Client, "limits", config)
		require.ErrorContains(t, err, "-1 is negative")
	}
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{MaxData: 12, MaxID: 3, MaxWaiting: 5})
		save := func(job *beequeue.Job) error { return job.Save(queuetest.Bounded(t)) }

		require.NoError(t, save(f.CreateJob("0123456789"))) // and two quotes
		err := save(f.CreateJob("0123456789a"))
		require.ErrorIs(t, err, beequeue.ErrDataTooLarge)
		require.ErrorContains(t, err, "13 bytes, of at most 12")
		require.NoError(t, save(f.CreateJob(nil).SetID("abc")))
		err = save(f.CreateJob(nil).SetID("abcd"))
		require.ErrorIs(t, err, beequeue.ErrIDTooLong)
		require.ErrorContains(t, err, "4 bytes, of at most 3")

		// Three more have room, in order; delayed ones always do, and one that is there
		// already is still a duplicate.
		batch := []*beequeue.Job{
			f.CreateJob(1), f.CreateJob(2).SetID("two"), f.CreateJob(3).DelayUntil(time.Now().Add(time.Hour)),
			f.CreateJob(4), f.CreateJob(5), f.CreateJob(6).SetID("six"), f.CreateJob(7).SetID("abc"),
			f.CreateJob(8).DelayUntil(time.Now().Add(time.Hour)),
		}
		err = f.SaveAll(queuetest.Bounded(t), batch)
		var failed *beequeue.SaveAllError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Errors, 3)
		for _, job := range []*beequeue.Job{batch[4], batch[5]} {
			require.ErrorIs(t, failed.Errors[job], beequeue.ErrQueueFull)
			require.ErrorContains(t, failed.Errors[job], "at most 5")
		}
		require.ErrorIs(t, failed.Errors[batch[6]], beequeue.ErrDuplicateID)
		counts, err := f.Counts(queuetest.Bounded(t))
		require.NoError(t, err)
		require.EqualValues(t, 5, counts.Waiting)
		require.EqualValues(t, 2, counts.Delayed)
		refused := f.CreateJob(9)
		require.ErrorIs(t, save(refused), beequeue.ErrQueueFull)

		// When there is room again, what was refused can be saved.
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.NoError(t, save(refused))
		plain := []*beequeue.Job{f.CreateJob(1), f.CreateJob(2), f.CreateJob(3), f.CreateJob(4), f.CreateJob(5)}
		err = f.SaveAll(queuetest.Bounded(t), plain)
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Errors, 1)
		require.ErrorIs(t, failed.Errors[plain[4]], beequeue.ErrQueueFull)
		require.NotErrorIs(t, err, beequeue.ErrUncertain)

		// A job whose id is taken needs no room, and one that has none takes no id.
		g := queuetest.Open(t, s, beequeue.Config{MaxWaiting: 2})
		require.NoError(t, g.CreateJob(1).SetID("a").Save(queuetest.Bounded(t)))
		all := []*beequeue.Job{
			g.CreateJob(1).SetID("a"), g.CreateJob(2).SetID("b"), g.CreateJob(3).SetID("b"), g.CreateJob(4).SetID("c"), g.CreateJob(5).SetID("c"),
		}
		failed = nil
		require.ErrorAs(t, g.SaveAll(queuetest.Bounded(t), all), &failed)
		require.Len(t, failed.Errors, 4)
		require.ErrorIs(t, failed.Errors[all[0]], beequeue.ErrDuplicateID)
		require.ErrorIs(t, failed.Errors[all[2]], beequeue.ErrDuplicateID)
		require.ErrorIs(t, failed.Errors[all[3]], beequeue.ErrQueueFull)
		require.ErrorIs(t, failed.Errors[all[4]], beequeue.ErrQueueFull)

		// Nor does one that has the id of a delayed job before it.
		h := queuetest.Open(t, s, beequeue.Config{MaxWaiting: 1})
		all = []*beequeue.Job{
			h.CreateJob(1).SetID("a").DelayUntil(time.Now().Add(time.Hour)), h.CreateJob(2).SetID("a"), h.CreateJob(3).SetID("b"),
		}
		failed = nil
		require.ErrorAs(t, h.SaveAll(queuetest.Bounded(t), all), &failed)
		require.Len(t, failed.Errors, 1)
		require.ErrorIs(t, failed.Errors[all[1]], beequeue.ErrDuplicateID)

		findings, err := f.Audit(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Empty(t, findings)
	})
	// Text of the user's is never part of a key's name or of a script.
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	odd := strings.Repeat("]]\n{}'\"", 1000)
	require.NoError(t, f.CreateJob(odd).SetID(odd).Save(queuetest.Bounded(t)))
}
