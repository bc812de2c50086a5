package beequeue_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// Wait gives the same whether it begins before or after the job's end.
func TestWaitBeforeAndAfter(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		good := f.Save("good")
		bad := f.Save("bad", func(j *beequeue.Job) { j.Retries(1) })
		type end struct {
			result json.RawMessage
			err    error
		}
		ends := map[*beequeue.Job]chan end{good: make(chan end, 1), bad: make(chan end, 1)}
		for job, c := range ends {
			go func() {
				result, err := job.Wait(context.Background()) // without end: it is not bounded
				c <- end{result, err}
			}()
		}
		f.Subscribed(1)
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"bad"` {
				return nil, queuetest.ErrBroken
			}
			return 42, nil
		})
		check := func(result json.RawMessage, goodErr, badErr error) {
			require.NoError(t, goodErr)
			require.Equal(t, "42", string(result))
			var failed *beequeue.FailedError
			require.ErrorAs(t, badErr, &failed)
			require.Equal(t, bad.ID, failed.ID)
			require.Equal(t, "broken", failed.Message)
			require.ErrorContains(t, badErr, `beequeue: wait for job "`+bad.ID+`" in queue "`+f.Name()+`": job "`+bad.ID+`" failed: broken`)
		}
		early := queuetest.Receive(t, ends[good], "Wait")
		check(early.result, early.err, queuetest.Receive(t, ends[bad], "Wait").err)

		late, goodErr := good.Wait(queuetest.Bounded(t))
		_, badErr := bad.Wait(queuetest.Bounded(t))
		check(late, goodErr, badErr)

		// Another process has heard nothing, and has the job by looking it up.
		other := f.Peer(beequeue.Config{})
		job, err := other.GetJob(queuetest.Bounded(t), good.ID)
		require.NoError(t, err)
		late, goodErr = job.Wait(queuetest.Bounded(t))
		job, err = other.GetJob(queuetest.Bounded(t), bad.ID)
		require.NoError(t, err)
		_, badErr = job.Wait(queuetest.Bounded(t))
		check(late, goodErr, badErr)
	})
}

// Wait hears of the end of a job whose record is then removed, if Wait began before the end.
// It also does if the queue was listening when the job was saved.
func TestWaitWithRemoval(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{RemoveOnSuccess: true, RemoveOnFailure: true})
		listening := false
		for name, handler := range map[string]beequeue.Handler{"good": queuetest.Succeed, "bad": queuetest.Fail} {
			job := f.Save(name)
			check := func(err error) {
				t.Helper()
				if name == "good" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, "failed: broken")
				}
			}
			errs := make(chan error, 1)
			go func() {
				_, err := job.Wait(context.Background())
				errs <- err
			}()
			f.Subscribed(1)
			queuetest.Drain(t, f.Queue, 1, handler)
			check(queuetest.Receive(t, errs, "Wait"))
			_, err := job.Wait(queuetest.Bounded(t))
			if listening {
				check(err)
			} else {
				require.ErrorIs(t, err, beequeue.ErrNotFound)
			}
			listening = true
		}
	})
}

// In a cluster, or when callbacks are slow, the event of a failure may arrive after the job
// was retried by hand. It is not the end of the job.
func TestWaitIgnoresLateFailure(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
		require.NoError(t, job.Retry(queuetest.Bounded(t)))
		errs := make(chan error, 1)
		go func() {
			_, err := job.Wait(context.Background())
			errs <- err
		}()
		f.Subscribed(1)
		f.Must("PUBLISH", "events", `{"id":"1","event":"failed","data":"broken"}`)
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.NoError(t, queuetest.Receive(t, errs, "Wait"))
	})
}

func TestWaitRefuses(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	_, err := f.CreateJob(1).Wait(queuetest.Bounded(t))
	require.ErrorContains(t, err, "job is not saved")
	_, err = f.CreateJob(1).SetID("unknown").Wait(queuetest.Bounded(t))
	require.ErrorIs(t, err, beequeue.ErrNotFound)
	require.ErrorContains(t, err, `wait for job "unknown"`)
}

// The removal of a job ends a Wait for it, too.
func TestWaitForRemovedJob(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.Save(1)
	errs := make(chan error, 1)
	go func() {
		_, err := job.Wait(context.Background())
		errs <- err
	}()
	f.Subscribed(1)
	require.NoError(t, job.Remove(queuetest.Bounded(t)))
	require.ErrorIs(t, queuetest.Receive(t, errs, "Wait, which looks every 5 s"), beequeue.ErrNotFound)
}

func TestWaitContext(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := job.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		why := errors.New("why")
		cancelled, end := context.WithCancelCause(context.Background())
		end(why)
		_, err = job.Wait(cancelled)
		require.Error(t, err)
		f.RequireState(job.ID, beequeue.StateWaiting)
	})
}

// Close ends every Wait.
func TestWaitAndClose(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		errs := make(chan error, 5)
		for i := range cap(errs) {
			job := f.Save(i)
			go func() {
				_, err := job.Wait(context.Background())
				errs <- err
			}()
		}
		f.Subscribed(1)
		require.NoError(t, f.Close(queuetest.Bounded(t)))
		for range cap(errs) {
			require.ErrorIs(t, queuetest.Receive(t, errs, "Wait"), beequeue.ErrClosed)
		}
	})
}

// Waits that begin and end while the queue is closed leave nothing behind.
func TestWaitRacesClose(t *testing.T) {
	t.Parallel()
	for range 20 {
		f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
		job := f.Save(1)
		var waiters sync.WaitGroup
		begin := make(chan struct{})
		ctx := queuetest.Bounded(t)
		for range 4 {
			waiters.Go(func() {
				<-begin
				_, err := job.Wait(ctx)
				if !errors.Is(err, beequeue.ErrClosed) {
					t.Errorf("Wait: %v", err)
				}
			})
		}
		close(begin)
		require.NoError(t, f.Close(ctx))
		waiters.Wait()
	}
}

// Many goroutines wait for the same job, and for many jobs, over a single subscription.
func TestWaitMany(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var batch []*beequeue.Job
		for i := range 50 {
			batch = append(batch, f.CreateJob(i))
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), batch))
		errs := make(chan error, 2*len(batch))
		for i, job := range batch {
			for range 2 {
				// A job is not for use by two goroutines at once.
				job := f.CreateJob(nil).SetID(job.ID)
				go func() {
					got, err := beequeue.WaitFor[int](context.Background(), job)
					if err == nil && got != i {
						err = errors.New("the result of another job")
					}
					errs <- err
				}()
			}
		}
		f.Subscribed(1)
		require.EqualValues(t, 1, f.Subscriptions("events"))
		r := queuetest.Process(t, f.Queue, 5, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
		for range cap(errs) {
			require.NoError(t, queuetest.Receive(t, errs, "Wait"))
		}
		require.NoError(t, r.Stop())
	})
}

// Without events, Wait finds out by looking.
func TestWaitWithoutEvents(t *testing.T) {
	t.Parallel()
	queuetest.OnReal(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{NoEvents: true})
		good, bad := f.Save("good"), f.Save("bad")
		type end struct {
			result json.RawMessage
			err    error
		}
		ends := make(chan end, 2)
		for _, job := range []*beequeue.Job{good, bad} {
			go func() {
				result, err := job.Wait(context.Background())
				ends <- end{result, err}
			}()
		}
		f.Subscribed(1)
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"bad"` {
				return nil, queuetest.ErrBroken
			}
			return "r", nil
		})
		for range 2 {
			got := queuetest.Receive(t, ends, "Wait, which looks every 5 s")
			if got.err == nil {
				require.Equal(t, `"r"`, string(got.result))
			} else {
				require.ErrorContains(t, got.err, "broken")
			}
		}
	})
}

// Watch hears of all that happens to its job, the end last, and of no other job.
func TestWatch(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		other := f.Save("other")
		job := f.Save("bad", func(j *beequeue.Job) { j.Retries(1) })
		var events []beequeue.Event
		ended := make(chan error, 1)
		go func() {
			_, err := job.Watch(context.Background(), func(e beequeue.Event) { events = append(events, e) })
			ended <- err
		}()
		f.Subscribed(1)
		queuetest.Drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
			if err := job.ReportProgress(ctx, 7); err != nil {
				return nil, err
			}
			if string(job.Data) == `"bad"` {
				return nil, queuetest.ErrBroken
			}
			return nil, nil
		})
		require.ErrorContains(t, queuetest.Receive(t, ended, "Watch"), "failed: broken")
		names := make([]string, len(events))
		for i, e := range events {
			names[i] = e.Name
		}
		require.Equal(t, []string{"progress", "retrying", "progress", "failed"}, names)
		require.Equal(t, "7", string(events[0].Data))
		for _, i := range []int{1, 3} {
			require.Nil(t, events[i].Data)
			var failed *beequeue.FailedError
			require.ErrorAs(t, events[i].Err, &failed)
			require.Equal(t, beequeue.FailedError{ID: job.ID, Message: "broken", Stack: failed.Stack}, *failed)
		}

		// After the end, only the end is told.
		events = nil
		result, err := other.Watch(queuetest.Bounded(t), func(e beequeue.Event) { events = append(events, e) })
		require.NoError(t, err)
		require.Nil(t, result)
		require.Equal(t, []beequeue.Event{{Name: "succeeded"}}, events)
	})
}

// A subscription is kept while anybody listens, and serves later listeners.
func TestWaitAgain(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		r := queuetest.Process(t, f.Queue, 2, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
		began := time.Now()
		for i := range 20 {
			got, err := beequeue.WaitFor[int](queuetest.Bounded(t), f.Save(i))
			require.NoError(t, err)
			require.Equal(t, i, got)
		}
		require.Less(t, time.Since(began), 20*watchInterval/2, "events were missed")
		require.NoError(t, r.Stop())
	})
}

// watchInterval is how often Wait looks although it has heard nothing.
const watchInterval = 5 * time.Second

// A Watch that finds the end of its job by looking, instead of by an event, hands on the
// events that came before it. It is tried several times, because a look and an event may be
// there at once, and either may be taken first.
func TestWatchHandsOnBeforeTheEnd(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	quiet := f.Peer(beequeue.Config{NoEvents: true})
	told := make(chan string, 10) // after the watches
	f.OnJobProgress(func(_ string, progress json.RawMessage) { told <- string(progress) })
	for range 10 {
		job := f.Save(nil)
		var events []string
		blocked, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := job.Watch(queuetest.Bounded(t), func(e beequeue.Event) {
				if events = append(events, e.Name+" "+string(e.Data)); len(events) == 1 {
					close(blocked)
					<-release
				}
			})
			ended <- err
		}()
		f.Subscribed(1)
		queuetest.Await(t, "the first event", func() bool {
			require.NoError(t, job.ReportProgress(queuetest.Bounded(t), 1))
			queuetest.Receive(t, told, "progress")
			select {
			case <-blocked:
				return true
			default: // nobody watches yet
				return false
			}
		})
		looks := time.NewTimer(watchPatience) // it looks after that
		require.NoError(t, job.ReportProgress(queuetest.Bounded(t), 2))
		require.Equal(t, "2", queuetest.Receive(t, told, "progress"))
		queuetest.Drain(t, quiet, 1, queuetest.Succeed)
		queuetest.Receive(t, looks.C, "the time of the look")
		close(release)
		require.NoError(t, queuetest.Receive(t, ended, "Watch"))
		require.Subset(t, events, []string{"progress 2"})
		require.Equal(t, "succeeded ", events[len(events)-1])
	}
}

// watchPatience is how long a Watch hears nothing before it looks for the first time.
const watchPatience = 200 * time.Millisecond

func TestTyped(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		type push struct{ To string }
		type receipt struct{ Text string }
		handler := beequeue.Typed(func(_ context.Context, p push) (receipt, error) {
			if p.To == "" {
				return receipt{}, queuetest.ErrBroken
			}
			return receipt{"sent to " + p.To}, nil
		})
		good := f.Save(push{"mh"})
		empty := f.Save(push{})
		wrong := f.Save([]int{1}, func(j *beequeue.Job) { j.Retries(5) })
		queuetest.Drain(t, f.Queue, 1, handler)

		got, err := beequeue.WaitFor[receipt](queuetest.Bounded(t), good)
		require.NoError(t, err)
		require.Equal(t, receipt{"sent to mh"}, got)
		_, err = beequeue.WaitFor[receipt](queuetest.Bounded(t), empty)
		require.ErrorContains(t, err, "failed: broken")
		_, err = beequeue.WaitFor[receipt](queuetest.Bounded(t), wrong)
		require.ErrorContains(t, err, "cannot unmarshal array")
		require.Len(t, f.Lookup(wrong.ID).Options.Stacktraces, 1, "data that does not fit is not tried again")

		_, err = beequeue.WaitFor[int](queuetest.Bounded(t), good)
		require.ErrorContains(t, err, `beequeue: decode result of job "`+good.ID+`"`)

		nothing := f.Save(1)
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		zero, err := beequeue.WaitFor[receipt](queuetest.Bounded(t), nothing)
		require.NoError(t, err)
		require.Zero(t, zero)
	})
}
