package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// The waiter's connections break before the event comes. Wait returns the result.
//
// Bee-Queue: the event is gone, and its listeners never hear of it.
func TestFaultWaitMissesEvent(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	name := newName()
	w := open(t, direct, name, beequeue.Config{})
	q := open(t, queuetest.Dial(t, proxy.URL()), name, beequeue.Config{})
	view := &keys{t, direct, q.KeyPrefix()}
	job, bad := q.save("good"), q.save("bad")
	results, failures := make(chan string, 1), make(chan error, 1)
	go func() {
		result, err := job.Wait(queuetest.Bounded(t))
		assert.NoError(t, err)
		results <- string(result)
	}()
	go func() {
		_, err := bad.Wait(queuetest.Bounded(t))
		failures <- err
	}()
	queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, direct, q.KeyPrefix()) == 1 })
	proxy.Block()
	queuetest.Await(t, "the subscription to be gone", func() bool { return subscribersOf(t, direct, q.KeyPrefix()) == 0 })
	require.NoError(t, w.Drain(queuetest.Bounded(t), 2, func(_ context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `"bad"` {
			return nil, assert.AnError
		}
		return "result", nil
	}))
	require.Equal(t, int64(1), view.number("SCARD", "succeeded"))
	proxy.Unblock(t)
	began := time.Now()
	require.Equal(t, `"result"`, queuetest.Receive(t, results, "Wait"))
	var failed *beequeue.FailedError
	require.ErrorAs(t, queuetest.Receive(t, failures, "Wait"), &failed)
	require.Equal(t, assert.AnError.Error(), failed.Message)
	t.Logf("Wait returned %v after Redis was back", time.Since(began).Round(time.Millisecond))
	require.Error(t, q.errs.find(nil, "subscription"))
}

// Close ends a Wait that looks for its job while Redis is away, with and without a
// subscription.
func TestFaultWaitEndsAtClose(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	for _, stands := range []bool{false, true} {
		q := open(t, queuetest.Dial(t, proxy.URL()), newName(), beequeue.Config{CallTimeout: time.Hour})
		job := q.save(nil)
		waits := make(chan error, 2)
		wait := func() {
			_, err := job.Wait(context.Background())
			waits <- err
		}
		begun := 1
		if stands {
			begun++
			go wait()
			queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, direct, q.KeyPrefix()) == 1 })
		}
		proxy.Block()
		go wait()
		stays(t, 50*time.Millisecond, "Wait goes on", func() bool { return len(waits) == 0 })
		require.NoError(t, q.Close(queuetest.Bounded(t)))
		for range begun {
			require.ErrorIs(t, queuetest.Receive(t, waits, "Wait"), beequeue.ErrClosed)
		}
		proxy.Unblock(t)
	}
}

// Subscriptions are killed again and again while many jobs are waited for.
func TestFaultWaitWithSubscriptionsKilled(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	q.process(10, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
	control := s.Client(t)
	stop := every(20*time.Millisecond, func() {
		_ = control.Do(context.Background(), control.B().Arbitrary("CLIENT", "KILL", "TYPE", "pubsub").Build()).Error()
	})
	defer stop()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 10 {
				job := q.CreateJob(i*10 + j)
				err := job.Save(queuetest.Bounded(t))
				var result json.RawMessage
				if err == nil {
					result, err = job.Wait(queuetest.Bounded(t))
				}
				if err != nil || string(result) != string(job.Data) {
					t.Errorf("job %s: result %s, %v", job.Data, result, err)
				}
			}
		})
	}
	wg.Wait()
}

// A queue that only saves subscribes to nothing, and neither does a Wait for a finished job.
// The subscription of a Wait that had to wait goes away some time later.
//
// Bee-Queue: each queue value subscribes when it is made, unless told not to.
func TestFaultSubscribesOnlyWhenHeard(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	w := open(t, client, q.Name(), beequeue.Config{})
	job := q.save("early")
	require.NoError(t, w.Drain(queuetest.Bounded(t), 1, func(context.Context, *beequeue.Job) (any, error) { return 7, nil }))
	result, err := job.Wait(queuetest.Bounded(t))
	require.NoError(t, err)
	require.Equal(t, "7", string(result))
	require.Zero(t, subscribersOf(t, client, q.KeyPrefix()))

	late := q.save("late")
	waited := make(chan error, 1)
	go func() {
		_, err := late.Wait(queuetest.Bounded(t))
		waited <- err
	}()
	queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, client, q.KeyPrefix()) == 1 })
	require.NoError(t, w.Drain(queuetest.Bounded(t), 1, func(context.Context, *beequeue.Job) (any, error) { return 7, nil }))
	require.NoError(t, queuetest.Receive(t, waited, "Wait"))
	began := time.Now()
	queuetest.Await(t, "the subscription to go away", func() bool { return subscribersOf(t, client, q.KeyPrefix()) == 0 })
	t.Logf("the subscription went away after %v", time.Since(began).Round(time.Millisecond))
	require.NoError(t, q.Close(queuetest.Bounded(t)))
}

// Two thousand saves and waits leave nothing behind.
//
// It does not run beside other tests, because they have goroutines and memory, too.
func TestFaultWaitsLeaveNothing(t *testing.T) {
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{RemoveOnSuccess: true})
	const concurrency, waiters, each = 10, 10, 100
	q.process(concurrency, func(context.Context, *beequeue.Job) (any, error) { return 7, nil })
	use := func() {
		var wg sync.WaitGroup
		for range waiters {
			wg.Go(func() {
				for range each {
					job := q.CreateJob(nil)
					err := job.Save(context.Background())
					if err == nil {
						_, err = job.Wait(context.Background())
					}
					// The job may be gone already: with its record, its result.
					if err != nil && !errors.Is(err, beequeue.ErrNotFound) {
						t.Errorf("job %q: %v", job.ID, err)
					}
				}
			})
		}
		wg.Wait()
	}
	state := func() (goroutines int, objects uint64) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return len(libraryGoroutines()), m.HeapObjects
	}
	use()
	goroutines, objects := state()
	for range 2 {
		use()
	}
	queuetest.Await(t, "goroutines to end, and what they held to be collected", func() bool {
		now, after := state()
		return now <= goroutines+concurrency && // of which the worker may keep one for each handler
			after < objects+waiters*each
	})
}

// A Wait for a job that was saved while the queue listened does not ask Redis, because the
// queue has heard all events of the job. A large result and an id that was in use before
// are right as well, though Wait may have to ask for them.
func TestWaitAsksNobody(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, client, q.KeyPrefix()}
	stop := q.process(5, func(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil })
	q.OnJobProgress(func(string, json.RawMessage) {})              // has the queue listen
	asked := func() int { return callsOf(t, client, "sismember") } // of lookup.lua alone
	request := func(job *beequeue.Job, early bool) (asks int, took time.Duration) {
		t.Helper()
		require.NoError(t, job.Save(queuetest.Bounded(t)))
		if !early {
			queuetest.Await(t, "the job to end", func() bool { return view.number("LLEN", "active")+view.number("LLEN", "waiting") == 0 })
		}
		before, began := asked(), time.Now()
		result, err := job.Wait(queuetest.Bounded(t))
		took = time.Since(began)
		require.NoError(t, err)
		require.JSONEq(t, string(job.Data), string(result))
		return asked() - before, took
	}
	queuetest.Await(t, "the subscription", func() bool {
		asks, _ := request(q.CreateJob(nil), true)
		return asks == 0
	})
	quick := 0
	for i := range 20 {
		asks, took := request(q.CreateJob(i), i%2 == 0)
		if took < 200*time.Millisecond { // a Wait that hears nothing for longer may ask
			quick++
			require.Zero(t, asks)
		}
	}
	require.Positive(t, quick)
	request(q.CreateJob(strings.Repeat("x", 10_000)), false)
	mine := q.CreateJob("mine").SetID("mine")
	request(mine, false)
	require.NoError(t, mine.Remove(queuetest.Bounded(t)))
	request(q.CreateJob("again").SetID("mine"), false)

	removed := q.save(nil)
	_, err := removed.Wait(queuetest.Bounded(t))
	require.NoError(t, err)
	require.NoError(t, removed.Remove(queuetest.Bounded(t)))
	_, err = removed.Wait(queuetest.Bounded(t))
	require.ErrorIs(t, err, beequeue.ErrNotFound)
	require.NoError(t, stop())
}
