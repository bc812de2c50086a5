package faults_test

import (
	"context"
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A worker process is stopped while it runs a job, until another takes the job over and
// finishes it. Then the first goes on. The outcome of the first is not
// recorded, and the first is told so.
//
// Bee-Queue: the late worker's MULTI writes its record, adds the job to succeeded and
// publishes a second event, no matter who has the job.
func TestFaultStoppedWorkerIsFenced(t *testing.T) {
	for _, does := range []string{childLate, childObeys} {
		t.Run(does, func(t *testing.T) {
			t.Parallel()
			const stall = 600 * time.Millisecond
			s := startRedis(t)
			client := queuetest.Dial(t, s.URL())
			q := open(t, client, newName(), beequeue.Config{StallInterval: stall})
			view := &keys{t, client, q.KeyPrefix()}
			ends := make(chan string, 10)
			q.OnJobSucceeded(func(id string, result json.RawMessage) { ends <- id + string(result) })
			q.OnJobFailed(func(id string, _ error) { ends <- id + " failed" })
			q.OnJobRetrying(func(id string, _ error) { ends <- id + " retrying" })

			job := q.save(nil)
			child := startChild(t, does, s.URL(), q.Name(), stall)
			require.Equal(t, job.ID, child.prints("start: "))
			child.signal(syscall.SIGSTOP)

			stop := q.process(1, func(context.Context, *beequeue.Job) (any, error) { return "second", nil })
			require.Equal(t, job.ID+`"second"`, queuetest.Receive(t, ends, "the event of the second worker"))
			before := view.record(job.ID)
			if does == childLate {
				_, err := child.stdin.Write([]byte("\n")) // so it returns as soon as it goes on
				require.NoError(t, err)
			}
			child.signal(syscall.SIGCONT)

			if does == childObeys {
				assert.Equal(t, "true", child.prints("cause: "), "cause of the cancelled context is ErrOwnershipLost")
			}
			assert.Contains(t, child.prints("error: true"), `job "`+job.ID+`"`)
			require.NoError(t, stop())
			assert.Equal(t, before, view.record(job.ID))
			assert.Equal(t, []string{"succeeded"}, view.places()[job.ID])
			view.check()
			// Anything the late worker had published would arrive before this.
			require.NoError(t, client.Do(queuetest.Bounded(t), client.B().Publish().Channel(q.KeyPrefix()+"events").
				Message(`{"id":"end","event":"succeeded"}`).Build()).Error())
			assert.Equal(t, "end", queuetest.Receive(t, ends, "the last event"), "the late worker has published an event")
			child.mu.Lock()
			defer child.mu.Unlock()
			for _, line := range child.lines {
				assert.NotContains(t, line, "recorded: ")
			}
		})
	}
}

// The same happens within one process: a worker's connections carry nothing until its job
// is taken back.
func TestFaultCutOffWorkerIsFenced(t *testing.T) {
	t.Parallel()
	const stall = 600 * time.Millisecond
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	name := newName()
	direct := queuetest.Dial(t, s.URL())
	near := open(t, direct, name, beequeue.Config{StallInterval: stall})
	far := open(t, queuetest.Dial(t, proxy.URL()), name, beequeue.Config{StallInterval: stall})
	view := &keys{t, direct, near.KeyPrefix()}

	causes, started := make(chan error, 1), make(chan string, 1)
	far.OnSucceeded(func(*beequeue.Job, json.RawMessage) { t.Error("the late worker says that the job has succeeded") })
	far.OnFailed(func(*beequeue.Job, error) { t.Error("the late worker says that the job has failed") })
	stopFar := far.process(1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		started <- job.ID
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	})
	job := near.save(nil)
	require.Equal(t, job.ID, queuetest.Receive(t, started, "the start of the job"))
	proxy.Block()
	done := make(chan string, 1)
	stalled := make(chan string, 10)
	near.OnStalled(func(id string) { stalled <- id })
	near.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { done <- job.ID })
	stopNear := near.process(1, func(context.Context, *beequeue.Job) (any, error) { return "second", nil })
	assert.Equal(t, job.ID, queuetest.Receive(t, stalled, "OnStalled"))
	assert.Equal(t, job.ID, queuetest.Receive(t, done, "the second run"))
	before := view.record(job.ID)
	proxy.Unblock(t)

	require.ErrorIs(t, queuetest.Receive(t, causes, "the end of the first run"), beequeue.ErrOwnershipLost)
	queuetest.Await(t, "OnError", func() bool { return far.errs.find(beequeue.ErrOwnershipLost, `job "`+job.ID+`"`) != nil })
	require.NoError(t, stopFar())
	require.NoError(t, stopNear())
	assert.Equal(t, before, view.record(job.ID))
	view.check()
	assert.Zero(t, view.number("HLEN", "owners"))
}

// A job that kills its worker each time fails after MaxStalls+1 runs. The jobs beside it
// complete.
//
// Bee-Queue: there is no limit, and the job kills workers for ever.
func TestFaultKillerJobIsFailed(t *testing.T) {
	t.Parallel()
	const stall = 500 * time.Millisecond
	const others = 40
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{StallInterval: stall, MaxStalls: 2})
	view := &keys{t, client, q.KeyPrefix()}
	failed := make(chan error, 10)
	q.OnJobFailed(func(_ string, err error) { failed <- err })

	killer := q.CreateJob(map[string]bool{"kill": true}).Retries(5)
	jobs := []*beequeue.Job{killer}
	for range others {
		jobs = append(jobs, q.CreateJob(map[string]bool{"kill": false}))
	}
	require.NoError(t, q.SaveAll(queuetest.Bounded(t), jobs))

	deaths := 0
	var child *child
	for running := true; running; {
		child = startChild(t, childKills, s.URL(), q.Name(), stall)
		select {
		case <-child.ended:
			deaths++
			require.LessOrEqual(t, deaths, 3, "runs of the job: MaxStalls is 2")
		case err := <-failed:
			running = false
			var f *beequeue.FailedError
			require.ErrorAs(t, err, &f)
			assert.Equal(t, killer.ID, f.ID)
			assert.Contains(t, f.Message, "stalled")
		case <-time.After(queuetest.Patience):
			require.FailNow(t, "the job was not failed", "it was run %d times", deaths)
		}
	}
	assert.Equal(t, 3, deaths, "runs of the job")
	queuetest.Await(t, "the others to succeed", func() bool { return view.number("SCARD", "succeeded") == others })
	got, err := q.GetJob(queuetest.Bounded(t), killer.ID)
	require.NoError(t, err)
	assert.Equal(t, beequeue.StatusFailed, got.Status)
	require.Len(t, got.Options.Stacktraces, 1)
	assert.Contains(t, got.Options.Stacktraces[0], "stalled 3 times")
	assert.Equal(t, []string{"failed"}, view.places()[killer.ID])
	_, err = killer.Wait(queuetest.Bounded(t))
	require.ErrorContains(t, err, "stalled 3 times")
	view.check()
	assert.Zero(t, view.number("HLEN", "stalls"))
}

// The queue value that fails a stalled job says so: ErrStalled in OnFailedForGood.
func TestFaultStalledErrorIsTold(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{StallInterval: 100 * time.Millisecond, MaxStalls: 1})
	view := &keys{t, client, q.KeyPrefix()}
	told := make(chan error, 10)
	q.OnFailedForGood(func(_ *beequeue.Job, err error) { told <- err })
	job := q.save(nil)
	// Its worker is lost again and again: it is in active, and nobody owns it.
	loss := func() {
		_ = client.Do(queuetest.Bounded(t), client.B().Lmove().Source(q.KeyPrefix()+"waiting").
			Destination(q.KeyPrefix()+"active").Right().Left().Build()).Error()
		_, err := q.CheckStalled(queuetest.Bounded(t))
		require.NoError(t, err)
	}
	stop := every(30*time.Millisecond, loss)
	defer stop()
	require.ErrorIs(t, queuetest.Receive(t, told, "OnFailedForGood"), beequeue.ErrStalled)
	stop()
	assert.Equal(t, []string{"failed"}, view.places()[job.ID])
	view.check()
}
