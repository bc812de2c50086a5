package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A claim drops an id whose record is gone, and a second copy of an id that runs already.
// Neither stays in active.
//
// Bee-Queue: BRPOPLPUSH has moved the id to active before anybody looks for its
// record, and there it stays until a stall check; a copy runs beside the first.
func TestFaultClaimWithoutRecord(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{StallInterval: time.Minute})
	view := &keys{t, client, q.KeyPrefix()}
	ran, finish := make(chan string, 10), make(chan struct{})
	stop := q.process(3, func(_ context.Context, job *beequeue.Job) (any, error) {
		ran <- job.ID
		<-finish
		return nil, nil
	})
	job := q.save(nil)
	require.Equal(t, job.ID, queuetest.Receive(t, ran, "the job"))
	view.number("LPUSH", "waiting", "ghost", job.ID, "ghost", job.ID)
	queuetest.Await(t, "waiting to be empty", func() bool { return view.number("LLEN", "waiting") == 0 })
	require.Equal(t, []string{job.ID}, view.list("LRANGE", "active", "0", "-1"))
	close(finish)
	view.allSucceeded(1)
	require.NoError(t, stop())
	require.Empty(t, ran, "another run")
	require.Zero(t, view.number("HLEN", "owners"))
}

// A worker process is killed when its blocking call has just claimed a job. It has only
// that job, which the stall check gives to another worker.
//
// Bee-Queue: the same, if the queue runs stall checks at all.
func TestFaultKilledWhenWoken(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	gate := redistest.StartGate(t, s.Addr)
	client := queuetest.Dial(t, s.URL())
	const stall = time.Second
	q := open(t, client, newName(), beequeue.Config{StallInterval: stall})
	view := &keys{t, client, q.KeyPrefix()}
	blocked := func() bool {
		list, err := client.Do(queuetest.Bounded(t), client.B().ClientList().Build()).ToString()
		return err == nil && lineHasAll(list, "cmd=blmove", "flags=b")
	}
	child := startChild(t, childObeys, gate.URL(), q.Name(), stall)
	queuetest.Await(t, "the worker to wait, with a second to go", func() bool {
		list, err := client.Do(queuetest.Bounded(t), client.B().ClientList().Build()).ToString()
		return err == nil && lineHasAll(list, "cmd=blmove", "flags=b", " idle=0 ")
	})
	gate.Hold()
	ids := []string{q.save(nil).ID, q.save(nil).ID, q.save(nil).ID}
	queuetest.Await(t, "the claim", func() bool { return !blocked() })
	child.signal(syscall.SIGKILL)
	<-child.ended
	require.Equal(t, ids[:1], view.list("LRANGE", "active", "0", "-1"))
	require.Equal(t, int64(2), view.number("LLEN", "waiting"))
	view.check()

	var runs runCounts
	began := time.Now()
	stop := q.process(1, func(_ context.Context, job *beequeue.Job) (any, error) {
		runs.ran(job.ID)
		return nil, nil
	})
	view.allSucceeded(3)
	t.Logf("the job of the dead worker was done after %v, at a stall interval of %v", time.Since(began), stall)
	require.NoError(t, stop())
	runs.once(t, ids, false)
}

// The reply of a claim is lost. The jobs run once, and no job is left in active.
//
// Bee-Queue: the id is in active and no worker knows of it; it takes two stall
// checks to come back.
func TestFaultClaimReplyLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	client := queuetest.Dial(t, s.URL())
	name := newName()
	q := open(t, client, name, beequeue.Config{})
	w := open(t, queuetest.Dial(t, proxy.URL()), name, beequeue.Config{StallInterval: time.Minute})
	view := &keys{t, client, q.KeyPrefix()}
	var ids []string
	for range 20 {
		ids = append(ids, q.save(nil).ID)
	}
	proxy.DropReplies(3, isTurn)
	var runs runCounts
	began := time.Now()
	stop := w.process(10, func(_ context.Context, job *beequeue.Job) (any, error) {
		runs.ran(job.ID)
		return nil, nil
	})
	view.allSucceeded(len(ids))
	t.Logf("20 jobs, three replies lost: %v", time.Since(began))
	require.NoError(t, stop())
	runs.once(t, ids, false)
	require.Equal(t, 3, proxy.Dropped())
	require.Zero(t, view.number("HLEN", "owners"))
}

// The reply to an outcome is lost. The outcome is recorded once and told once, and the job
// is not taken for lost.
//
// Bee-Queue: the MULTI that is sent again publishes again, and the callback gets an error
// although the job is recorded.
func TestFaultFinishReplyLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	client := queuetest.Dial(t, s.URL())
	name := newName()
	q := open(t, client, name, beequeue.Config{})
	w := open(t, queuetest.Dial(t, proxy.URL()), name, beequeue.Config{})
	view := &keys{t, client, q.KeyPrefix()}
	told, published := make(chan string, 20), make(chan string, 20)
	w.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { told <- job.ID + " succeeded" })
	w.OnRetrying(func(job *beequeue.Job, _ error) { told <- job.ID + " retrying" })
	q.OnJobSucceeded(func(id string, _ json.RawMessage) { published <- id + " succeeded" })
	q.OnJobRetrying(func(id string, _ error) { published <- id + " retrying" })
	queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, client, q.KeyPrefix()) == 1 })

	job := q.CreateJob(nil).Retries(1)
	require.NoError(t, job.Save(queuetest.Bounded(t)))
	var runs runCounts
	stop := w.process(1, func(_ context.Context, job *beequeue.Job) (any, error) {
		proxy.DropReplies(2, isTurn) // of the call that records this run
		if runs.ran(job.ID) == 1 {
			return nil, errors.New("once more")
		}
		return nil, nil
	})
	want := []string{job.ID + " retrying", job.ID + " succeeded"}
	for _, w := range want {
		require.Equal(t, w, queuetest.Receive(t, told, "the callback"))
		require.Equal(t, w, queuetest.Receive(t, published, "the event"))
	}
	view.allSucceeded(1)
	require.NoError(t, stop())
	require.Equal(t, 4, proxy.Dropped())
	require.Equal(t, 2, runs.of(job.ID))
	require.Empty(t, told)
	require.Empty(t, published)
	require.NoError(t, w.errs.find(beequeue.ErrOwnershipLost, ""))
	got, err := q.GetJob(queuetest.Bounded(t), job.ID)
	require.NoError(t, err)
	require.Len(t, got.Options.Stacktraces, 1)
	require.Zero(t, got.Options.Retries)
}
