package beequeue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

func TestSave(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for i := 1; i <= 3; i++ {
			job := f.CreateJob(i)
			require.Empty(t, job.ID, "an id comes with Save")
			require.NoError(t, job.Save(queuetest.Bounded(t)))
			require.Equal(t, strconv.Itoa(i), job.ID)
		}
		require.Equal(t, []string{"3", "2", "1"}, f.Waiting(), "the oldest is next, at the right end")
		require.Equal(t, "3", f.Text("GET", "id"))
		require.NoError(t, f.CreateJob(nil).Save(context.Background()), "without a deadline")
	})
}

func TestSaveDuplicateID(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		unique := func(data any) *beequeue.Job { return f.CreateJob(data).SetID("a job") }
		require.NoError(t, unique("first").Save(queuetest.Bounded(t)))
		record := f.Record("a job")
		require.ErrorIs(t, unique("second").Save(queuetest.Bounded(t)), beequeue.ErrDuplicateID)
		require.ErrorIs(t, unique("third").DelayUntil(time.Now().Add(time.Hour)).Save(queuetest.Bounded(t)), beequeue.ErrDuplicateID)
		require.Equal(t, record, f.Record("a job"), "the first is as it was")
		require.Equal(t, map[string][]string{"a job": {"waiting"}}, f.Places())

		// The id is taken as long as the record is there, whether the job is done or not.
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.ErrorIs(t, unique("fourth").Save(queuetest.Bounded(t)), beequeue.ErrDuplicateID)
		require.NoError(t, f.RemoveJob(queuetest.Bounded(t), "a job"))
		require.NoError(t, unique("fifth").Save(queuetest.Bounded(t)))
		require.Zero(t, f.Number("EXISTS", "id"), "no automatic id was used up")

		// A job that is already saved is a duplicate of itself.
		job := f.Save("automatic")
		require.ErrorIs(t, job.Save(queuetest.Bounded(t)), beequeue.ErrDuplicateID)
	})
}

// An id may be any text.
func TestSaveOddIDs(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		ids := []string{" ", "a b", "+", "-", "7:9", "é𝄞\n\x00", `"\`, "%s%d", "<&>", "{x}", "__proto__", fmt.Sprintf("%01000d", 0)}
		for _, id := range ids {
			f.Save(id, func(j *beequeue.Job) { j.SetID(id) })
		}
		var mu sync.Mutex
		var ran []string
		queuetest.Drain(t, f.Queue, 3, func(_ context.Context, job *beequeue.Job) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, job.ID)
			return job.ID, nil
		})
		require.ElementsMatch(t, ids, ran)
		for _, id := range ids {
			job := f.Lookup(id)
			require.Equal(t, id, job.ID)
			got, err := beequeue.WaitFor[string](queuetest.Bounded(t), job)
			require.NoError(t, err)
			require.Equal(t, id, got)
		}
	})
}

// Automatic ids skip numbers that are in use as ids, in single saves and inside a batch.
func TestAutomaticIDsSkipTakenOnes(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for _, id := range []string{"1", "2", "4"} {
			f.Save("own", func(j *beequeue.Job) { j.SetID(id) })
		}
		require.Equal(t, "3", f.Save("automatic").ID)
		require.Equal(t, "5", f.Save("automatic").ID)

		batch := []*beequeue.Job{f.CreateJob(0), f.CreateJob(1), f.CreateJob(2).SetID("7"), f.CreateJob(3)}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		seen := make(map[string]bool)
		for _, job := range batch {
			require.False(t, seen[job.ID], "id %q was given twice", job.ID)
			seen[job.ID] = true
			require.Equal(t, string(job.Data), string(f.Lookup(job.ID).Data))
		}
		require.Equal(t, "7", batch[2].ID)
		require.EqualValues(t, 9, f.Number("HLEN", "jobs"))
	})
}

// Saves from many goroutines at once are gathered, and each caller gets its own id.
func TestSaveFromManyGoroutines(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const goroutines, each = 8, 25
		jobs := make(chan *beequeue.Job, goroutines*each)
		errs := make(chan error, goroutines)
		ctx := queuetest.Bounded(t)
		for g := range goroutines {
			go func() {
				for i := range each {
					job := f.CreateJob(g*each + i)
					if err := job.Save(ctx); err != nil {
						errs <- err
						return
					}
					jobs <- job
				}
				errs <- nil
			}()
		}
		for range goroutines {
			require.NoError(t, queuetest.Receive(t, errs, "the savers"))
		}
		ids := make(map[string]bool)
		for range goroutines * each {
			job := <-jobs
			ids[job.ID] = true
			require.Equal(t, string(job.Data), string(f.Lookup(job.ID).Data))
		}
		require.Len(t, ids, goroutines*each)
		require.EqualValues(t, goroutines*each, f.Number("LLEN", "waiting"))
	})
}

func TestSaveAllOrder(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), nil))
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), []*beequeue.Job{}))
		require.Empty(t, f.Places())

		// The batch is more than a single call takes, and more than Lua's unpack takes.
		jobs := make([]*beequeue.Job, 1200)
		want := make([]string, len(jobs))
		for i := range jobs {
			jobs[i] = f.CreateJob(i)
			want[i] = strconv.Itoa(i + 1)
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), jobs))
		got := make([]string, len(jobs))
		for i, job := range jobs {
			got[i] = job.ID
		}
		require.True(t, slices.Equal(want, got), "ids are given in the order of the jobs")
		waiting := f.Waiting()
		slices.Reverse(waiting)
		require.True(t, slices.Equal(want, waiting), "jobs wait in the order given")
		require.Equal(t, "1199", string(f.Lookup("1200").Data))
	})
}

// Large records go in several calls, in order as well.
func TestSaveAllLarge(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		large := make([]byte, 300<<10) // 400 KiB as JSON
		var jobs []*beequeue.Job
		for range 10 {
			jobs = append(jobs, f.CreateJob(large))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), jobs))
		require.Equal(t, []string{"10", "9", "8", "7", "6", "5", "4", "3", "2", "1"}, f.Waiting())
	})
}

// Jobs that cannot be saved do not keep the others from being saved.
func TestSaveAllSomeBad(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		other := queuetest.Open(t, s, beequeue.Config{})
		f.Save("there before", func(j *beequeue.Job) { j.SetID("taken") })

		good := []*beequeue.Job{
			f.CreateJob("plain"),
			f.CreateJob("own id").SetID("mine"),
			f.CreateJob("later").SetID("later").DelayUntil(time.Now().Add(time.Hour)),
			f.CreateJob("last"),
		}
		taken := f.CreateJob("taken").SetID("taken")
		twin := f.CreateJob("second of the batch").SetID("mine")
		negative := f.CreateJob("negative").Retries(-1)
		unmarshallable := f.CreateJob(func() {})
		foreign := other.CreateJob("foreign")
		batch := []*beequeue.Job{good[0], taken, good[1], negative, twin, nil, good[2], unmarshallable, foreign, good[3]}

		err := f.SaveAll(queuetest.Bounded(t), batch)
		var all *beequeue.SaveAllError
		require.ErrorAs(t, err, &all)
		require.ErrorContains(t, err, "beequeue: save 10 jobs")
		require.ErrorContains(t, err, "6 jobs not saved")
		require.Len(t, all.Errors, 6)
		require.ErrorIs(t, all.Errors[taken], beequeue.ErrDuplicateID)
		require.ErrorIs(t, all.Errors[twin], beequeue.ErrDuplicateID)
		require.ErrorContains(t, all.Errors[negative], "Retries: -1 is negative")
		require.ErrorContains(t, all.Errors[unmarshallable], "marshal data")
		require.ErrorContains(t, all.Errors[foreign], fmt.Sprintf("job belongs to queue %q", other.Name()))
		require.ErrorContains(t, all.Errors[nil], "job is nil")
		require.ErrorIs(t, err, beequeue.ErrDuplicateID, "errors.Is reaches the errors of the jobs")

		require.Equal(t, map[string][]string{
			"taken": {"waiting"}, "mine": {"waiting"}, "later": {"delayed"},
			good[0].ID: {"waiting"}, good[3].ID: {"waiting"},
		}, f.Places())
		require.Equal(t, []string{good[3].ID, "mine", good[0].ID, "taken"}, f.Waiting())
		require.Equal(t, `"own id"`, string(f.Lookup("mine").Data))
		require.Equal(t, `"there before"`, string(f.Lookup("taken").Data))
		require.Empty(t, other.Places())
	})
}

// A *Job that is given twice is saved once.
func TestSaveAllSameJobTwice(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.CreateJob(1)
	_ = f.SaveAll(queuetest.Bounded(t), []*beequeue.Job{job, job}) // an error or not
	require.Equal(t, map[string][]string{job.ID: {"waiting"}}, f.Places())
}

func TestSaveDelayed(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		first := time.Now().Add(time.Hour)
		var batch []*beequeue.Job
		for i, id := range []string{"c", "a", "b"} {
			batch = append(batch, f.CreateJob(i).SetID(id).DelayUntil(first.Add(time.Duration(id[0])*time.Minute)))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		require.Equal(t, []string{"a", "b", "c"}, f.List("ZRANGE", "delayed", "0", "-1"))
		score, err := f.Cmd("ZSCORE", "delayed", "a").AsFloat64()
		require.NoError(t, err)
		due := first.Add('a' * time.Minute)
		require.InDelta(t, float64(due.UnixNano())/1e6, score, 1)
		require.GreaterOrEqual(t, score, float64(due.UnixNano())/1e6, "never early")
	})
}

// Save after the end of its context stores nothing, or says that the outcome is uncertain.
// The same job can be saved again.
func TestSaveWithEndedContext(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		job := f.CreateJob(1)
		if err := job.Save(ended); err != nil {
			require.ErrorIs(t, err, context.Canceled)
			require.NoError(t, job.Save(queuetest.Bounded(t)))
		}
		require.Equal(t, map[string][]string{job.ID: {"waiting"}}, f.Places())
	})
}

func TestSaveNil(t *testing.T) {
	t.Parallel()
	var job *beequeue.Job
	require.ErrorContains(t, job.Save(queuetest.Bounded(t)), "job was not made by CreateJob")
	require.ErrorContains(t, new(beequeue.Job).Save(queuetest.Bounded(t)), "job was not made by CreateJob")
}

// A SaveAll that is cut short tells which jobs are not known to be saved. When they are saved
// again, each job is there once.
func TestSaveAllCutShort(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const n = 3000
		all := make([]*beequeue.Job, n)
		for i := range all {
			all[i] = f.CreateJob(i)
		}
		rest, tries := all, 0
		for ; len(rest) > 0; tries++ {
			ctx, cancel := context.WithTimeout(queuetest.Bounded(t), time.Duration(tries*tries)*5*time.Millisecond)
			err := f.SaveAll(ctx, rest)
			cancel()
			rest = nil
			var failed *beequeue.SaveAllError
			if errors.As(err, &failed) {
				for job, err := range failed.Errors {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					rest = append(rest, job)
				}
			}
		}
		require.Greater(t, tries, 1)
		require.EqualValues(t, n, f.Number("LLEN", "waiting"))
		ids := make(map[string]bool)
		for i, job := range all {
			ids[job.ID] = true
			if i%100 == 0 {
				require.Equal(t, strconv.Itoa(i), string(f.Lookup(job.ID).Data))
			}
		}
		require.Len(t, ids, n)
	})
}

// Save refuses jobs that exceed a limit, and no others.
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

		// Three more jobs have room, in order. Delayed jobs always have room. A job that is
		// already there is still a duplicate.
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

		// When there is room again, the refused job can be saved.
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.NoError(t, save(refused))
		plain := []*beequeue.Job{f.CreateJob(1), f.CreateJob(2), f.CreateJob(3), f.CreateJob(4), f.CreateJob(5)}
		err = f.SaveAll(queuetest.Bounded(t), plain)
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Errors, 1)
		require.ErrorIs(t, failed.Errors[plain[4]], beequeue.ErrQueueFull)
		require.NotErrorIs(t, err, beequeue.ErrUncertain)

		// A job whose id is taken needs no room, and a job without room takes no id.
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

		// A job with the id of a delayed job before it needs no room either.
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
	// Text from users is never part of a key's name or of a script.
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	odd := strings.Repeat("]]\n{}'\"", 1000)
	require.NoError(t, f.CreateJob(odd).SetID(odd).Save(queuetest.Bounded(t)))
}
