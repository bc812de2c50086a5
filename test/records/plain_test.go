package records_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A plain success changes only the status and the result. Redis is told of it without the
// record, which the script brings up to date.

// The bytes of the record stay as they are, except status and result.
func TestPlainSuccess(t *testing.T) {
	t.Parallel()
	records := map[string]string{
		"ours":    `{"data":{"a":[1,2]},"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}`,
		"Node's":  `{"data":{"status":"created"},"options":{"timestamp":1,"stacktraces":[],"mine":true},"status":"created","progress":{"at":1}}`,
		"first":   `{"status":"created","data":1,"options":{},"progress":0}`,
		"more":    `{"data":null,"other":"status","options":{"retries":2},"status":"retrying"}`,
		"a space": `{"data":1,"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0 }`,
	}
	results := map[string]any{`,"result":null`: nil, `,"result":{"sum":3}`: map[string]int{"sum": 3}, `,"result":"%1 %d"`: "%1 %d"}
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for name, record := range records {
			for written, result := range results {
				f := queuetest.Open(t, s, beequeue.Config{})
				f.Plant("7", record)
				queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) { return result, nil })
				at := strings.LastIndex(record, `"status":"`)
				_, rest, _ := strings.Cut(record[at+len(`"status":"`):], `"`)
				require.Equal(t, record[:at]+`"status":"succeeded"`+written+rest, f.Record("7"), name)
				f.RequireState("7", beequeue.StateSucceeded)
				require.Equal(t, beequeue.StatusSucceeded, f.Lookup("7").Status)
			}
		}
	})
}

// When a success is not plain, the whole record is written.
func TestSuccessThatIsNotPlain(t *testing.T) {
	t.Parallel()
	const plain = `{"data":1,"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}`
	for name, c := range map[string]struct {
		id, record string
		change     func(*beequeue.Job)
		want       string
	}{
		"an id to escape": {id: `a"b\c<`, record: plain},
		"progress":        {change: func(j *beequeue.Job) { j.Progress = []byte("50") }, want: `"progress":50`},
		"data":            {change: func(j *beequeue.Job) { j.Data[0] = '2' }, want: `"data":2`},
		"options":         {change: func(j *beequeue.Job) { j.Retries(3) }, want: `"retries":3`},
		"failed before":   {record: strings.Replace(plain, "created", "failed", 1)},
		"an old result":   {record: strings.Replace(plain, `"status"`, `"result":5,"status"`, 1)},
		"spaces":          {record: strings.Replace(plain, `"status":`, `"status": `, 1)},
		"no status":       {record: `{"data":1}`},
		"stacktraces":     {record: strings.Replace(plain, "[]", `["x"]`, 1), want: `"stacktraces":["x"]`},
	} {
		if c.id == "" {
			c.id = "7"
		}
		if c.record == "" {
			c.record = plain
		}
		queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
			f := queuetest.Open(t, s, beequeue.Config{})
			f.Plant(c.id, c.record)
			queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
				if c.change != nil {
					c.change(job)
				}
				return 9, nil
			})
			f.RequireState(c.id, beequeue.StateSucceeded)
			require.Contains(t, f.Record(c.id), `"status":"succeeded","result":9`, name)
			require.Contains(t, f.Record(c.id), c.want, name)
			require.Equal(t, "9", string(f.Lookup(c.id).Result), name)
		})
	}
}

// Somebody changes the record while the job runs.
func TestPlainSuccessOfAChangedRecord(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		longer := f.Save("a")
		moved := f.Save("b")
		removed := f.Save("c")
		queuetest.Drain(t, f.Queue, 3, func(_ context.Context, job *beequeue.Job) (any, error) {
			record := f.Record(job.ID)
			switch job.ID {
			case longer.ID: // behind the status: it is kept
				f.Must("HSET", "jobs", job.ID, record[:len(record)-1]+`,"seen":true}`)
			case moved.ID: // the status is elsewhere: the worker writes its own
				f.Must("HSET", "jobs", job.ID, `{"seen":true,`+record[1:])
			case removed.ID:
				f.Must("HDEL", "jobs", job.ID)
			}
			return 9, nil
		})
		f.RequireState(longer.ID, beequeue.StateSucceeded)
		require.Contains(t, f.Record(longer.ID), `"seen":true`)
		require.Contains(t, f.Record(longer.ID), `"status":"succeeded","result":9`)
		f.RequireState(moved.ID, beequeue.StateSucceeded)
		require.True(t, strings.HasPrefix(f.Record(moved.ID), `{"data":"b"`), f.Record(moved.ID))
		require.Contains(t, f.Record(moved.ID), `"status":"succeeded","result":9`)
		require.ErrorContains(t, f.Catch(queuetest.Is(beequeue.ErrOwnershipLost)), `job "`+removed.ID+`"`)
		require.NotContains(t, f.Places(), removed.ID)
		require.Empty(t, f.Active())
	})
}

// A second copy of an id is waiting when its run ends. The turn that brings the outcome
// claims the job as the outcome has left it.
func TestCopyOfAJobThatEnds(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		for _, remove := range []bool{false, true} {
			f := queuetest.Open(t, s, beequeue.Config{RemoveOnSuccess: remove})
			job := f.Save("a")
			runs := 0
			queuetest.Drain(t, f.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
				if runs++; runs == 1 {
					f.Must("LPUSH", "waiting", job.ID)
				}
				return runs, nil
			})
			require.Empty(t, f.Active())
			if remove {
				require.Equal(t, 1, runs)
				require.NotContains(t, f.Places(), job.ID)
				continue
			}
			require.Equal(t, 2, runs)
			require.Equal(t, 1, strings.Count(f.Record(job.ID), `"result"`))
			require.Equal(t, "2", string(f.Lookup(job.ID).Result))
		}
	})
}

// A key has the wrong type when an outcome that no longer counts comes with room for another
// job. The other job stays in waiting.
func TestWrongTypeAtALostOutcome(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Faulty = true // as often as it is tried
		refused := make(chan struct{}, 1)
		f.OnError(func(err error) {
			if strings.Contains(err.Error(), "WRONGTYPE") {
				select {
				case refused <- struct{}{}:
				default:
				}
			}
		})
		taken := f.Save("a")
		var next *beequeue.Job
		r := queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if job.ID == taken.ID && next == nil {
				next = f.Save("b")
				f.Must("HDEL", "owners", taken.ID)
				f.Must("DEL", "active")
				f.Must("SET", "active", "not a list")
			}
			return nil, nil
		})
		queuetest.Receive(t, refused, "OnError")
		require.Equal(t, []string{next.ID}, f.Waiting())
		f.Must("DEL", "active")
		f.Must("LPUSH", "waiting", taken.ID)
		for _, job := range []*beequeue.Job{next, taken} {
			_, err := job.Wait(queuetest.Bounded(t))
			require.NoError(t, err)
		}
		require.NoError(t, r.Stop())
	})
}

// Large records do not pass through scripts, and nobody notices. They are run, retried and
// kept as small records are, and in the same turns.
func TestLargeRecords(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		payload := func(i int) string {
			if i%10 == 9 { // few enough that records are large on the whole
				return "small"
			}
			return strings.Repeat("x", 20_000+i)
		}
		const n = 60
		jobs := make([]*beequeue.Job, n)
		for i := range jobs {
			jobs[i] = f.CreateJob(payload(i)).Retries(1)
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), jobs))
		for _, concurrency := range []int{3, 20} { // 20 have two turns under way
			queuetest.Drain(t, f.Queue, concurrency, func(_ context.Context, job *beequeue.Job) (any, error) {
				if job.Options.Retries == 1 && len(job.Data)%2 == 0 {
					return nil, queuetest.ErrBroken
				}
				return len(job.Data), nil
			})
			for i, job := range jobs {
				found, err := f.GetJob(queuetest.Bounded(t), job.ID)
				require.NoError(t, err)
				require.Equal(t, beequeue.StatusSucceeded, found.Status)
				require.JSONEq(t, strconv.Itoa(len(payload(i))+2), string(found.Result))
				require.Equal(t, string(job.Data), string(found.Data))
				require.NoError(t, found.Remove(queuetest.Bounded(t)))
			}
			counts, err := f.Counts(queuetest.Bounded(t))
			require.NoError(t, err)
			require.Zero(t, counts.Waiting+counts.Active+counts.Succeeded+counts.Failed)
			for i := range jobs {
				jobs[i] = f.CreateJob(payload(i)).Retries(1)
			}
			require.NoError(t, f.SaveAll(queuetest.Bounded(t), jobs))
		}

		// A job that is removed while it is claimed is not run, and leaves nothing.
		r := queuetest.Process(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			for _, other := range jobs {
				if other.ID != job.ID {
					if err := other.Remove(context.Background()); err != nil {
						return nil, err
					}
				}
			}
			return nil, nil
		})
		queuetest.Await(t, "the queue to be empty", func() bool {
			counts, err := f.Counts(queuetest.Bounded(t))
			return err == nil && counts.Waiting+counts.Active == 0
		})
		require.NoError(t, r.Stop())
	})
}
