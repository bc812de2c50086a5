package beequeue_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// inEachState makes a job in every state. The job in active runs until release is called,
// which waits for its end.
func inEachState(t *testing.T, f *queuetest.Fixture) (ids map[beequeue.State]string, release func()) {
	t.Helper()
	ids = make(map[beequeue.State]string)
	ids[beequeue.StateSucceeded] = f.Save("succeeds").ID
	queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
	ids[beequeue.StateFailed] = f.Save("fails").ID
	queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
	ids[beequeue.StateDelayed] = f.Save("later", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) }).ID
	ids[beequeue.StateActive] = f.Save("runs").ID
	running, done := make(chan struct{}), make(chan struct{})
	r := queuetest.Process(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
		close(running)
		<-done
		return nil, nil
	})
	queuetest.Receive(t, running, "the handler")
	ids[beequeue.StateWaiting] = f.Save("waits").ID
	return ids, func() {
		r.Cancel()
		close(done)
		require.NoError(t, r.Wait())
	}
}

func TestGetJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		_, err := f.GetJob(queuetest.Bounded(t), "1")
		require.ErrorIs(t, err, beequeue.ErrNotFound)
		require.ErrorContains(t, err, `get job "1" in queue "`+f.Name()+`": job not found`)

		ids, release := inEachState(t, f)
		for state, id := range ids {
			job := f.Lookup(id)
			require.Equal(t, id, job.ID)
			want := map[beequeue.State]beequeue.Status{
				beequeue.StateSucceeded: beequeue.StatusSucceeded,
				beequeue.StateFailed:    beequeue.StatusFailed,
			}[state]
			if want == "" {
				want = beequeue.StatusCreated
			}
			require.Equal(t, want, job.Status, state)
		}
		require.Equal(t, []string{"broken"}, f.Lookup(ids[beequeue.StateFailed]).Options.Stacktraces)
		release()
	})
}

func TestGetJobMalformed(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	f.Plant("bad", `{"data":1,"options":[]}`)
	_, err := f.GetJob(queuetest.Bounded(t), "bad")
	var bad *beequeue.RecordError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, beequeue.RecordError{ID: "bad", Reason: "options: want an object, got []"}, *bad)
	require.ErrorContains(t, err, `job "bad" has a malformed record`)
}

func TestIsInSet(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		ids, release := inEachState(t, f)
		queuetest.Within(t, "25 answers, of which 20 are no,", 5*time.Second, func() time.Duration {
			began := time.Now()
			for state, id := range ids {
				job := f.Lookup(id)
				for _, other := range queuetest.States {
					in, err := job.IsInSet(queuetest.Bounded(t), other)
					require.NoError(t, err)
					require.Equal(t, state == other, in, "job in %s, asked for %s", state, other)
				}
			}
			return time.Since(began)
		})
		in, err := f.CreateJob(nil).SetID("none").IsInSet(queuetest.Bounded(t), beequeue.StateWaiting)
		require.NoError(t, err)
		require.False(t, in)
		_, err = f.Lookup(ids[beequeue.StateFailed]).IsInSet(queuetest.Bounded(t), "stalling")
		require.ErrorContains(t, err, `unknown state "stalling"`)
		release()
	})
}

func idsOf(jobs []*beequeue.Job) []string {
	ids := make([]string, len(jobs))
	for i, job := range jobs {
		ids[i] = job.ID
	}
	return ids
}

// Lists and delayed are paged in order.
func TestGetJobsOrdered(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const n = 130
		batch := make([]*beequeue.Job, 0, 2*n)
		var newestFirst, dueFirst []string
		for i := range n {
			batch = append(batch, f.CreateJob(i).SetID("w"+strconv.Itoa(i)))
			newestFirst = append(newestFirst, "w"+strconv.Itoa(i))
		}
		for i := range n {
			batch = append(batch, f.CreateJob(i).SetID("d"+strconv.Itoa(i)).DelayUntil(time.Now().Add(time.Hour+time.Duration(i)*time.Second)))
			dueFirst = append(dueFirst, "d"+strconv.Itoa(i))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		slices.Reverse(newestFirst)

		for state, all := range map[beequeue.State][]string{
			beequeue.StateWaiting: newestFirst, beequeue.StateDelayed: dueFirst, beequeue.StateActive: nil,
		} {
			for _, page := range []beequeue.Page{
				{},
				{Size: 1},
				{Size: 50},
				{Size: n},
				{Size: 10 * n},
				{Start: 1, Size: 2},
				{Start: 50},
				{Start: n - 1, Size: 5},
				{Start: n},
				{Start: 10 * n, Size: 3},
			} {
				size := page.Size
				if size == 0 {
					size = 100
				}
				first, last := min(page.Start, len(all)), min(page.Start+size, len(all))
				jobs, err := f.GetJobs(queuetest.Bounded(t), state, page)
				require.NoError(t, err)
				require.Equal(t, append([]string{}, all[first:last]...), idsOf(jobs), "%s, page %+v", state, page)
			}
		}
		jobs, err := f.GetJobs(queuetest.Bounded(t), beequeue.StateWaiting, beequeue.Page{Start: 3, Size: 1})
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(n-4), string(jobs[0].Data), "records come with the ids")
	})
}

// Sets are larger than the reply of an SSCAN, and pages of them are complete.
func TestGetJobsOfSets(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{ScanCount: 10})
		const n = 250
		batch := make([]*beequeue.Job, n)
		want := make([]string, n)
		for i := range batch {
			// Long ids keep Redis from packing the set.
			want[i] = "a job with quite a long id, for the sake of its encoding, number " + strconv.Itoa(i)
			batch[i] = f.CreateJob(i).SetID(want[i])
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		queuetest.Drain(t, f.Queue, 50, queuetest.Succeed)

		jobs, err := f.GetJobs(queuetest.Bounded(t), beequeue.StateSucceeded, beequeue.Page{})
		require.NoError(t, err)
		require.Len(t, jobs, 100, "100 is the default")
		jobs, err = f.GetJobs(queuetest.Bounded(t), beequeue.StateSucceeded, beequeue.Page{Size: 10 * n})
		require.NoError(t, err)
		require.ElementsMatch(t, want, idsOf(jobs))
		for _, job := range jobs {
			require.Equal(t, beequeue.StatusSucceeded, job.Status)
		}
		var paged []string
		for start := 0; ; start += 60 {
			jobs, err := f.GetJobs(queuetest.Bounded(t), beequeue.StateSucceeded, beequeue.Page{Start: start, Size: 60})
			require.NoError(t, err)
			if len(jobs) == 0 {
				break
			}
			paged = append(paged, idsOf(jobs)...)
		}
		require.ElementsMatch(t, want, paged, "pages overlap or leave out jobs")

		jobs, err = f.GetJobs(queuetest.Bounded(t), beequeue.StateFailed, beequeue.Page{})
		require.NoError(t, err)
		require.Empty(t, jobs)
	})
}

func TestGetJobsEachState(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		ids, release := inEachState(t, f)
		for state, id := range ids {
			jobs, err := f.GetJobs(queuetest.Bounded(t), state, beequeue.Page{})
			require.NoError(t, err)
			require.Equal(t, []string{id}, idsOf(jobs), state)
		}
		release()
	})
}

func TestGetJobsRefuses(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	_, err := f.GetJobs(queuetest.Bounded(t), "jobs", beequeue.Page{})
	require.ErrorContains(t, err, `unknown state "jobs"`)
	for _, page := range []beequeue.Page{{Start: -1}, {Size: -1}, {Start: int(^uint(0) >> 1), Size: 2}} {
		_, err := f.GetJobs(queuetest.Bounded(t), beequeue.StateWaiting, page)
		require.ErrorContains(t, err, "out of range", "%+v", page)
	}
}

// Records that cannot be read do not keep the others from being listed. Ids without a record
// are left out.
func TestGetJobsMalformed(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	f.Untidy = true
	f.Save("good", func(j *beequeue.Job) { j.SetID("good") })
	f.Plant("bad", "nonsense")
	f.Plant("worse", "null")
	f.Must("LPUSH", "waiting", "ghost")
	jobs, err := f.GetJobs(queuetest.Bounded(t), beequeue.StateWaiting, beequeue.Page{})
	require.Equal(t, []string{"good"}, idsOf(jobs))
	var bad *beequeue.RecordError
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, `job "bad" has a malformed record: record is not JSON`)
	require.ErrorContains(t, err, `job "worse" has a malformed record: want an object, got null`)
}

func TestRemoveJobInEveryState(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		ids, release := inEachState(t, f)
		for _, state := range queuetest.States {
			id := ids[state]
			require.NoError(t, f.Lookup(id).Remove(queuetest.Bounded(t)))
			require.NotContains(t, f.Places(), id, state)
			require.Zero(t, f.Number("HEXISTS", "jobs", id), state)
			require.NoError(t, f.RemoveJob(queuetest.Bounded(t), id), "one that is not there is no error")
		}
		require.Empty(t, f.List("HKEYS", "owners"))
		release()
		f.ExpectError(queuetest.Is(beequeue.ErrOwnershipLost)) // what became of the running one
		require.Empty(t, f.Places(), "the job that ran must not come back")
	})
}

// The handler of a removed job is told so at the next heartbeat, and its outcome changes
// nothing. A new job of the same id is another job.
func TestRemoveRunningJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{StallInterval: time.Second})
		f.Save("first", func(j *beequeue.Job) { j.SetID("x").Retries(5) })
		causes := make(chan error, 1)
		proceed := make(chan struct{})
		var ends []string
		f.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { ends = append(ends, string(job.Data)) })
		f.OnFailed(func(job *beequeue.Job, _ error) { ends = append(ends, "failed "+string(job.Data)) })
		running := make(chan struct{})
		r := queuetest.Process(t, f.Queue, 2, func(ctx context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) != `"first"` {
				return "second", nil
			}
			close(running)
			<-ctx.Done()
			causes <- context.Cause(ctx)
			<-proceed
			return "first", queuetest.ErrBroken
		})
		queuetest.Receive(t, running, "the handler")
		require.NoError(t, f.RemoveJob(queuetest.Bounded(t), "x"))
		require.ErrorIs(t, queuetest.Receive(t, causes, "the end of the context"), beequeue.ErrOwnershipLost)
		f.ExpectError(queuetest.Is(beequeue.ErrOwnershipLost))

		second := f.Save("second", func(j *beequeue.Job) { j.SetID("x") })
		close(proceed)
		got, err := beequeue.WaitFor[string](queuetest.Bounded(t), second)
		require.NoError(t, err)
		require.Equal(t, "second", got)
		require.NoError(t, r.Stop())
		require.Equal(t, []string{`"second"`}, ends)
		f.RequireState("x", beequeue.StateSucceeded)
	})
}

func TestRetry(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		ids, release := inEachState(t, f)
		release()
		for _, state := range queuetest.States {
			if state == beequeue.StateFailed {
				continue
			}
			err := f.Lookup(ids[state]).Retry(queuetest.Bounded(t))
			require.ErrorIs(t, err, beequeue.ErrNotFailed, state)
		}
		err := f.CreateJob(nil).SetID("none").Retry(queuetest.Bounded(t))
		require.ErrorIs(t, err, beequeue.ErrNotFound)
		require.NoError(t, f.RemoveJob(queuetest.Bounded(t), ids[beequeue.StateWaiting]))

		failed := f.Lookup(ids[beequeue.StateFailed])
		require.NoError(t, failed.Retry(queuetest.Bounded(t)))
		f.RequireState(failed.ID, beequeue.StateWaiting)
		require.ErrorIs(t, failed.Retry(queuetest.Bounded(t)), beequeue.ErrNotFailed, "it is retried once")
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		f.RequireState(failed.ID, beequeue.StateSucceeded)
		require.Equal(t, []string{"broken"}, f.Lookup(failed.ID).Options.Stacktraces, "what was wrong stays on record")
	})
}
