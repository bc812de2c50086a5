package beequeue_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// It makes no difference whether Wait begins before or after the job's end.
func TestWaitBeforeAndAfter(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		good := f.save("good")
		bad := f.save("bad", func(j *beequeue.Job) { j.Retries(1) })
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
		f.subscribed(1)
		drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"bad"` {
				return nil, errBroken
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
		early := receive(t, ends[good], "Wait")
		check(early.result, early.err, receive(t, ends[bad], "Wait").err)

		late, goodErr := good.Wait(bounded(t))
		_, badErr := bad.Wait(bounded(t))
		check(late, goodErr, badErr)

		// From another process, which never heard anything, and by a job looked up.
		other := f.peer(beequeue.Config{})
		job, err := other.GetJob(bounded(t), good.ID)
		require.NoError(t, err)
		late, goodErr = job.Wait(bounded(t))
		job, err = other.GetJob(bounded(t), bad.ID)
		require.NoError(t, err)
		_, badErr = job.Wait(bounded(t))
		check(late, goodErr, badErr)
	})
}

// Wait hears of a job whose record is removed when it ends, if it was there
// before, or if the queue was listening when the job was saved.
func TestWaitWithRemoval(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{RemoveOnSuccess: true, RemoveOnFailure: true})
		listening := false
		for name, handler := range map[string]beequeue.Handler{"good": succeed, "bad": fail} {
			job := f.save(name)
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
			f.subscribed(1)
			drain(t, f.Queue, 1, handler)
			check(receive(t, errs, "Wait"))
			_, err := job.Wait(bounded(t))
			if listening {
				check(err)
			} else {
				require.ErrorIs(t, err, beequeue.ErrNotFound)
			}
			listening = true
		}
	})
}

// A Wait for a job that was saved while the queue listened does not ask Redis: it has
// heard all that was said of the job. A large result and an id that was in use before
// are right as well, though it may have to ask for them.
func TestWaitAsksNobody(t *testing.T) {
	t.Parallel()
	s := faultRedis(t)
	client := faultClient(t, s.URL())
	q := faultOpen(t, client, faultName(), beequeue.Config{})
	view := &faultView{t, client, q.KeyPrefix()}
	stop := q.process(5, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
	q.OnJobProgress(func(string, json.RawMessage) {})                 // has the queue listen
	asked := func() int { return faultCalls(t, client, "sismember") } // of lookup.lua alone
	request := func(job *beequeue.Job, early bool) (asks int, took time.Duration) {
		t.Helper()
		require.NoError(t, job.Save(faultContext(t)))
		if !early {
			faultAwait(t, "the job to end", func() bool { return view.number("LLEN", "active")+view.number("LLEN", "waiting") == 0 })
		}
		before, began := asked(), time.Now()
		result, err := job.Wait(faultContext(t))
		took = time.Since(began)
		require.NoError(t, err)
		require.JSONEq(t, string(job.Data), string(result))
		return asked() - before, took
	}
	faultAwait(t, "the subscription", func() bool {
		asks, _ := request(q.CreateJob(nil), true)
		return asks == 0
	})
	quick := 0
	for i := range 20 {
		asks, took := request(q.CreateJob(i), i%2 == 0)
		if took < watchPatience { // a Wait that hears nothing for longer asks, and may
			quick++
			require.Zero(t, asks)
		}
	}
	require.Positive(t, quick)
	request(q.CreateJob(strings.Repeat("x", 10_000)), false)
	mine := q.CreateJob("mine").SetID("mine")
	request(mine, false)
	require.NoError(t, mine.Remove(faultContext(t)))
	request(q.CreateJob("again").SetID("mine"), false)

	removed := q.save(nil)
	_, err := removed.Wait(faultContext(t))
	require.NoError(t, err)
	require.NoError(t, removed.Remove(faultContext(t)))
	_, err = removed.Wait(faultContext(t))
	require.ErrorIs(t, err, beequeue.ErrNotFound)
	require.NoError(t, stop())
}

// An event of a failure may arrive when the job was retried by hand already: in a
// cluster, or when callbacks are slow. It is not the end of the job.
func TestWaitIgnoresLateFailure(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		job := f.save(1)
		drain(t, f.Queue, 1, fail)
		require.NoError(t, job.Retry(bounded(t)))
		errs := make(chan error, 1)
		go func() {
			_, err := job.Wait(context.Background())
			errs <- err
		}()
		f.subscribed(1)
		f.must("PUBLISH", "events", `{"id":"1","event":"failed","data":"broken"}`)
		drain(t, f.Queue, 1, succeed)
		require.NoError(t, receive(t, errs, "Wait"))
	})
}

func TestWaitRefuses(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	_, err := f.CreateJob(1).Wait(bounded(t))
	require.ErrorContains(t, err, "job is not saved")
	_, err = f.CreateJob(1).SetID("unknown").Wait(bounded(t))
	require.ErrorIs(t, err, beequeue.ErrNotFound)
	require.ErrorContains(t, err, `wait for job "unknown"`)
}

// A job that is removed while somebody waits for it comes to an end, too.
func TestWaitForRemovedJob(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	job := f.save(1)
	errs := make(chan error, 1)
	go func() {
		_, err := job.Wait(context.Background())
		errs <- err
	}()
	f.subscribed(1)
	require.NoError(t, job.Remove(bounded(t)))
	require.ErrorIs(t, receive(t, errs, "Wait, which looks every 5 s"), beequeue.ErrNotFound)
}

func TestWaitContext(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		job := f.save(1)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := job.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		why := errors.New("why")
		cancelled, end := context.WithCancelCause(context.Background())
		end(why)
		_, err = job.Wait(cancelled)
		require.Error(t, err)
		f.requireState(job.ID, beequeue.StateWaiting)
	})
}

// Close ends every Wait.
func TestWaitAndClose(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		errs := make(chan error, 5)
		for i := range cap(errs) {
			job := f.save(i)
			go func() {
				_, err := job.Wait(context.Background())
				errs <- err
			}()
		}
		f.subscribed(1)
		require.NoError(t, f.Close(bounded(t)))
		for range cap(errs) {
			require.ErrorIs(t, receive(t, errs, "Wait"), beequeue.ErrClosed)
		}
	})
}

// Waits that begin and end while the queue is closed leave nothing behind.
func TestWaitRacesClose(t *testing.T) {
	t.Parallel()
	for range 20 {
		f := open(t, mini, beequeue.Config{})
		job := f.save(1)
		var waiters sync.WaitGroup
		begin := make(chan struct{})
		ctx := bounded(t)
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

// Many wait for the same job, and for many jobs, over one subscription.
func TestWaitMany(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		var batch []*beequeue.Job
		for i := range 50 {
			batch = append(batch, f.CreateJob(i))
		}
		require.NoError(t, f.SaveAll(bounded(t), batch))
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
		f.subscribed(1)
		require.EqualValues(t, 1, f.subscriptions("events"))
		r := process(t, f.Queue, 5, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
		for range cap(errs) {
			require.NoError(t, receive(t, errs, "Wait"))
		}
		require.NoError(t, r.stop())
	})
}

// Without events, Wait finds out by looking.
func TestWaitWithoutEvents(t *testing.T) {
	t.Parallel()
	onReal(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{NoEvents: true})
		good, bad := f.save("good"), f.save("bad")
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
		f.subscribed(1)
		drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"bad"` {
				return nil, errBroken
			}
			return "r", nil
		})
		for range 2 {
			got := receive(t, ends, "Wait, which looks every 5 s")
			if got.err == nil {
				require.Equal(t, `"r"`, string(got.result))
			} else {
				require.ErrorContains(t, got.err, "broken")
			}
		}
	})
}

// Watch hears of all that happens to its job, the end last, and of no other.
func TestWatch(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		other := f.save("other")
		job := f.save("bad", func(j *beequeue.Job) { j.Retries(1) })
		var events []beequeue.Event
		ended := make(chan error, 1)
		go func() {
			_, err := job.Watch(context.Background(), func(e beequeue.Event) { events = append(events, e) })
			ended <- err
		}()
		f.subscribed(1)
		drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
			if err := job.ReportProgress(ctx, 7); err != nil {
				return nil, err
			}
			if string(job.Data) == `"bad"` {
				return nil, errBroken
			}
			return nil, nil
		})
		require.ErrorContains(t, receive(t, ended, "Watch"), "failed: broken")
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
		result, err := other.Watch(bounded(t), func(e beequeue.Event) { events = append(events, e) })
		require.NoError(t, err)
		require.Nil(t, result)
		require.Equal(t, []beequeue.Event{{Name: "succeeded"}}, events)
	})
}

// A subscription is kept while anybody listens, and serves who comes later.
func TestWaitAgain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		r := process(t, f.Queue, 2, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
		began := time.Now()
		for i := range 20 {
			got, err := beequeue.WaitFor[int](bounded(t), f.save(i))
			require.NoError(t, err)
			require.Equal(t, i, got)
		}
		require.Less(t, time.Since(began), 20*watchInterval/2, "events were missed")
		require.NoError(t, r.stop())
	})
}

// watchInterval is how often Wait looks although it has heard nothing.
const watchInterval = 5 * time.Second

func TestTyped(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		type push struct{ To string }
		type receipt struct{ Text string }
		handler := beequeue.Typed(func(_ context.Context, p push) (receipt, error) {
			if p.To == "" {
				return receipt{}, errBroken
			}
			return receipt{"sent to " + p.To}, nil
		})
		good := f.save(push{"mh"})
		empty := f.save(push{})
		wrong := f.save([]int{1}, func(j *beequeue.Job) { j.Retries(5) })
		drain(t, f.Queue, 1, handler)

		got, err := beequeue.WaitFor[receipt](bounded(t), good)
		require.NoError(t, err)
		require.Equal(t, receipt{"sent to mh"}, got)
		_, err = beequeue.WaitFor[receipt](bounded(t), empty)
		require.ErrorContains(t, err, "failed: broken")
		_, err = beequeue.WaitFor[receipt](bounded(t), wrong)
		require.ErrorContains(t, err, "cannot unmarshal array")
		require.Len(t, f.lookup(wrong.ID).Options.Stacktraces, 1, "data that does not fit is not tried again")

		_, err = beequeue.WaitFor[int](bounded(t), good)
		require.ErrorContains(t, err, `beequeue: decode result of job "`+good.ID+`"`)

		nothing := f.save(1)
		drain(t, f.Queue, 1, succeed)
		zero, err := beequeue.WaitFor[receipt](bounded(t), nothing)
		require.NoError(t, err)
		require.Zero(t, zero)
	})
}
