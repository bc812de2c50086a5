package model_test

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// Steps of TestStates that call the worker's side.

// ranAll notes that a worker ran all jobs that waited.
func (m *machine) ranAll(a *actor) {
	m.t.Helper()
	for range m.model.runAll(a.forgets) {
		m.f.ExpectError(queuetest.As[*beequeue.RecordError])
	}
}

func (m *machine) drain(a *actor) {
	m.model.logf("drain")
	require.NoError(m.t, a.Drain(m.ctx, m.slots(), m.meet))
	m.ranAll(a)
}

// comeDue has a delayed job come due, and runs everything.
func (m *machine) comeDue(a *actor) {
	id := m.model.pick(m.rand, beequeue.StateDelayed)
	if id == "" {
		return
	}
	m.model.logf("%q comes due", id)
	m.f.Must("ZADD", "delayed", "1", id)
	require.NoError(m.t, a.Drain(m.ctx, m.slots(), m.meet))
	m.model.wait(id)
	m.ranAll(a)
}

// process runs everything in several slots.
func (m *machine) process(a *actor) {
	m.model.logf("process")
	r := queuetest.Process(m.t, a.Queue, m.slots(), m.meet)
	m.awaitIdle()
	require.NoError(m.t, r.Stop())
	m.ranAll(a)
}

// awaitIdle waits until nothing waits and nothing runs.
func (m *machine) awaitIdle() {
	m.t.Helper()
	queuetest.Await(m.t, "the end of all jobs "+m.model.history(), func() bool {
		counts, err := m.quick.Counts(m.ctx)
		require.NoError(m.t, err)
		return counts.Waiting+counts.Active == 0
	})
}

// slots is a random concurrency, or 1 when several jobs are on their last chance. Workers run
// such jobs one at a time and put the others aside, which the model does not know.
func (m *machine) slots() int {
	if m.model.lastChances() > 1 {
		return 1
	}
	return 1 + m.rand.IntN(4)
}

// waitForRun waits for a job while it is run.
func (m *machine) waitForRun(a *actor) {
	if len(m.model.waiting) == 0 {
		return
	}
	id := pickOf(m.rand, m.model.waiting)
	m.model.logf("wait for %q while all run", id)
	if a.forgets {
		a = m.quick // Wait hears nothing of what is not published
	}
	ctx, cancel := context.WithTimeout(context.Background(), queuetest.Patience)
	defer cancel()
	var result string
	var err error
	var events []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		data, failure := a.CreateJob(nil).SetID(id).Watch(ctx, func(e beequeue.Event) { events = append(events, e.Name) })
		result, err = string(data), failure
	}()
	require.NoError(m.t, m.patient.Drain(m.ctx, m.slots(), m.meet))
	m.ranAll(m.patient)
	job := m.model.jobs[id]
	if job.state == beequeue.StateDelayed {
		cancel()
		queuetest.Receive(m.t, ended, "the end of Watch")
		require.ErrorIs(m.t, err, context.Canceled)
		return
	}
	queuetest.Receive(m.t, ended, "the end of Watch")
	m.requireEnd(id, result, err)
	require.Equal(m.t, string(job.state), events[len(events)-1])
}

// handBack stops a worker while its handlers run.
func (m *machine) handBack(*actor) {
	if len(m.model.waiting) == 0 {
		return
	}
	slots := m.slots()
	n := min(slots, len(m.model.waiting))
	if !m.holdable(m.model.waiting[:n]) {
		return
	}
	m.model.logf("hand back %d", n)
	var running atomic.Int32
	r := queuetest.Process(m.t, m.quick.Queue, slots, func(ctx context.Context, _ *beequeue.Job) (any, error) {
		running.Add(1)
		<-ctx.Done()
		return nil, nil
	})
	queuetest.Await(m.t, "the handlers", func() bool { return int(running.Load()) == n })
	require.ErrorIs(m.t, r.Stop(), beequeue.ErrUnfinished)
	m.model.handedBack(m.t, n, m.f.Waiting())
}

// holdable reports whether handlers can hold on to all of the jobs. Bad jobs and jobs with a
// timeout end by themselves.
func (m *machine) holdable(ids []string) bool {
	return !slices.ContainsFunc(ids, func(id string) bool {
		job := m.model.jobs[id]
		return job.bad != "" || job.fate() == "time out"
	})
}

// whileNextRuns calls f while the next job runs. Then the handler ends, and what it returns
// must not be recorded.
func (m *machine) whileNextRuns(what string, f func(id string)) {
	m.t.Helper()
	if len(m.model.waiting) == 0 || !m.holdable(m.model.waiting[:1]) {
		return
	}
	id := m.model.waiting[0]
	m.model.logf("%s %q while it runs", what, id)
	running, release := make(chan struct{}), make(chan struct{})
	r := queuetest.Process(m.t, m.patient.Queue, 1, func(context.Context, *beequeue.Job) (any, error) {
		close(running)
		<-release
		return nil, nil
	})
	queuetest.Receive(m.t, running, "the handler")
	f(id)
	r.Cancel()
	close(release)
	require.NoError(m.t, r.Wait())
	m.f.ExpectError(queuetest.Is(beequeue.ErrOwnershipLost))
}

func (m *machine) removeRunning(a *actor) {
	m.whileNextRuns("remove", func(id string) {
		require.NoError(m.t, a.RemoveJob(m.ctx, id))
		m.model.removed(id)
	})
}

// takeFromRunning has a stall check take a job back from a worker that still runs it.
func (m *machine) takeFromRunning(*actor) {
	m.whileNextRuns("take back", func(id string) {
		m.f.Must("HSET", "owners", id, "lost/1")
		m.model.stalled(id)
		queuetest.Await(m.t, "a check to take it back", func() bool {
			m.f.StallCheck(m.other.Queue) // the worker phones in for it, maybe between two of them
			return len(m.f.Active()) == 0
		})
	})
}

// stall loses a worker that has the next job.
func (m *machine) stall(a *actor) {
	if len(m.model.waiting) == 0 {
		return
	}
	id := m.model.waiting[0]
	m.model.logf("stall %q", id)
	m.f.Must("RPOP", "waiting")
	m.f.Must("LPUSH", "active", id)
	m.f.Must("HSET", "owners", id, "lost/1")
	require.Empty(m.t, m.f.StallCheck(a.Queue))
	back := m.f.StallCheck(a.Queue)
	if m.model.stalled(id) {
		require.Equal(m.t, []string{id}, back, m.model.history())
		return
	}
	require.Empty(m.t, back, m.model.history())
	if a.forgets && m.model.jobs[id].bad == "" {
		m.model.removed(id)
	}
}

// soon is how long a fault waits before it strikes, at most.
func (m *machine) soon() time.Duration { return time.Duration(m.rand.IntN(3000)) * time.Microsecond }
