package beequeue_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

var seedFlag = flag.Uint64("seed", 0, "seed of TestStates; 0 is a new one each time")

// Random public calls, on three values of one queue: after each of them, every
// job is in exactly the place that a simple model (model_test.go) says.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, s := range servers[:2] {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			seed := *seedFlag
			if seed == 0 {
				seed = rand.Uint64()
			}
			t.Logf("run again with: go test -run %s -seed %d", t.Name(), seed)
			newMachine(t, s, seed).run(150)
		})
	}
}

// A machine makes calls and keeps the model in step.
type machine struct {
	t      *testing.T
	f      *fixture
	queues []*beequeue.Queue // the last one waits long for its handlers
	rand   *rand.Rand
	model  model
}

func newMachine(t *testing.T, s *server, seed uint64) *machine {
	t.Helper()
	config := beequeue.Config{MaxStalls: modelMaxStalls, ShutdownTimeout: 10 * time.Millisecond}
	f := open(t, s, config)
	patient := f.peer(beequeue.Config{MaxStalls: modelMaxStalls, ShutdownTimeout: patience})
	return &machine{
		t: t, f: f, queues: []*beequeue.Queue{f.Queue, f.peer(config), patient},
		rand: rand.New(rand.NewPCG(seed, 0)), model: newModel(),
	}
}

func (m *machine) run(steps int) {
	m.t.Helper()
	kinds := []struct {
		weight int
		do     func(q *beequeue.Queue)
	}{
		{8, m.save},
		{4, m.saveAll},
		{2, m.saveTaken},
		{4, m.saveDelayed},
		{6, m.remove},
		{2, m.removeRunning},
		{4, m.retry},
		{2, m.retryOther},
		{4, m.comeDue},
		{3, m.drain},
		{3, m.process},
		{3, m.handBack},
		{6, m.stall},
		{1, m.destroy},
	}
	total := 0
	for _, kind := range kinds {
		total += kind.weight
	}
	for range steps {
		q := m.queues[m.rand.IntN(len(m.queues))]
		n := m.rand.IntN(total)
		for _, kind := range kinds {
			if n -= kind.weight; n < 0 {
				kind.do(q)
				break
			}
		}
		m.model.check(m.t, m.f)
	}
}

// newJob makes a job whose data is its fate: what becomes of each of its runs.
func (m *machine) newJob(q *beequeue.Queue) *beequeue.Job {
	all := []string{"succeed", "fail", "panic", "no retry"}
	var fates []string
	for range 4 {
		fates = append(fates, all[m.rand.IntN(len(all))])
	}
	job := q.CreateJob(fates).Retries(m.rand.IntN(4))
	if m.rand.IntN(2) == 0 {
		job.Backoff(beequeue.Fixed, time.Hour)
	}
	return job
}

// fateOf reads what is to become of a run.
func fateOf(job *beequeue.Job) string {
	var fates []string
	if err := json.Unmarshal(job.Data, &fates); err != nil {
		return err.Error()
	}
	return fates[len(job.Options.Stacktraces)%len(fates)]
}

// meet is the handler that lets a job meet its fate.
func meet(_ context.Context, job *beequeue.Job) (any, error) {
	switch fate := fateOf(job); fate {
	case "succeed":
		return fate, nil
	case "panic":
		panic(fate)
	case "no retry":
		return nil, beequeue.ErrNoRetry
	default:
		return nil, errors.New(fate)
	}
}

func (m *machine) save(q *beequeue.Queue) {
	job := m.newJob(q)
	if m.rand.IntN(3) == 0 {
		job.SetID(m.model.newName())
	}
	m.model.logf("save %q %s", job.ID, job.Data)
	require.NoError(m.t, job.Save(bounded(m.t)))
	m.model.added(m.t, job, beequeue.StateWaiting)
}

func (m *machine) saveDelayed(q *beequeue.Queue) {
	job := m.newJob(q).DelayUntil(time.Now().Add(time.Hour))
	m.model.logf("save delayed %s", job.Data)
	require.NoError(m.t, job.Save(bounded(m.t)))
	m.model.added(m.t, job, beequeue.StateDelayed)
}

func (m *machine) saveAll(q *beequeue.Queue) {
	var batch []*beequeue.Job
	twin := m.model.newName()
	for range m.rand.IntN(8) {
		job := m.newJob(q)
		switch m.rand.IntN(4) {
		case 0:
			job.DelayUntil(time.Now().Add(time.Hour))
		case 1:
			job.SetID(twin)
		case 2:
			job.SetID(m.model.newName())
		}
		batch = append(batch, job)
	}
	m.model.logf("save %d jobs", len(batch))
	err := q.SaveAll(bounded(m.t), batch)
	var failed *beequeue.SaveAllError
	errors.As(err, &failed)
	twins := 0
	for _, job := range batch {
		if job.ID == twin {
			twins++
		}
		if job.ID == twin && twins > 1 {
			require.ErrorIs(m.t, failed.Errors[job], beequeue.ErrDuplicateID)
			continue
		}
		state := beequeue.StateWaiting
		if !job.Options.DelayUntil.IsZero() {
			state = beequeue.StateDelayed
		}
		m.model.added(m.t, job, state)
	}
	require.Equal(m.t, twins > 1, err != nil, "%v", err)
}

func (m *machine) saveTaken(q *beequeue.Queue) {
	if id := m.model.pick(m.rand); id != "" {
		m.model.logf("save %q again", id)
		require.ErrorIs(m.t, q.CreateJob(nil).SetID(id).Save(bounded(m.t)), beequeue.ErrDuplicateID)
	}
}

func (m *machine) remove(q *beequeue.Queue) {
	id := m.model.pick(m.rand)
	m.model.logf("remove %q", id)
	require.NoError(m.t, q.RemoveJob(bounded(m.t), id))
	m.model.removed(id)
}

// removeRunning removes a job while its handler runs.
func (m *machine) removeRunning(*beequeue.Queue) {
	if len(m.model.waiting) == 0 {
		return
	}
	id := m.model.waiting[0]
	m.model.logf("remove %q while it runs", id)
	running, release := make(chan struct{}), make(chan struct{})
	r := process(m.t, m.queues[2], 1, func(context.Context, *beequeue.Job) (any, error) {
		close(running)
		<-release
		return nil, nil
	})
	receive(m.t, running, "the handler")
	require.NoError(m.t, m.f.RemoveJob(bounded(m.t), id))
	r.cancel()
	close(release)
	require.NoError(m.t, r.wait())
	m.f.expectError(is(beequeue.ErrOwnershipLost))
	m.model.removed(id)
}

func (m *machine) retry(q *beequeue.Queue) {
	id := m.model.pick(m.rand, beequeue.StateFailed)
	m.model.logf("retry %q", id)
	if id == "" {
		require.ErrorIs(m.t, q.CreateJob(nil).SetID("nobody").Retry(bounded(m.t)), beequeue.ErrNotFound)
		return
	}
	job, err := q.GetJob(bounded(m.t), id)
	require.NoError(m.t, err)
	require.NoError(m.t, job.Retry(bounded(m.t)))
	m.model.wait(id)
}

func (m *machine) retryOther(q *beequeue.Queue) {
	if id := m.model.pick(m.rand, beequeue.StateWaiting, beequeue.StateDelayed, beequeue.StateSucceeded); id != "" {
		m.model.logf("retry %q, which has not failed", id)
		require.ErrorIs(m.t, q.CreateJob(nil).SetID(id).Retry(bounded(m.t)), beequeue.ErrNotFailed)
	}
}

func (m *machine) drain(q *beequeue.Queue) {
	m.model.logf("drain")
	drain(m.t, q, 1, meet)
	m.model.runAll()
}

// comeDue has a delayed job come due, and runs everything.
func (m *machine) comeDue(q *beequeue.Queue) {
	id := m.model.pick(m.rand, beequeue.StateDelayed)
	if id == "" {
		return
	}
	m.model.logf("%q comes due", id)
	m.f.must("ZADD", "delayed", "1", id)
	drain(m.t, q, 1, meet)
	m.model.runAll()
	m.model.wait(id)
	m.model.runAll()
}

// process runs everything in several slots.
func (m *machine) process(q *beequeue.Queue) {
	m.model.logf("process")
	r := process(m.t, q, m.slots(), meet)
	await(m.t, "the end of all jobs", func() bool {
		counts, err := m.f.Counts(bounded(m.t))
		require.NoError(m.t, err)
		return counts.Waiting+counts.Active == 0
	})
	require.NoError(m.t, r.stop())
	m.model.runAll()
}

// slots is a random concurrency. Jobs on their last chance run one at a time;
// others of them are put aside, which the model does not know.
func (m *machine) slots() int {
	if m.model.lastChances() > 1 {
		return 1
	}
	return 1 + m.rand.IntN(4)
}

// handBack stops a worker while its handlers run.
func (m *machine) handBack(*beequeue.Queue) {
	if len(m.model.waiting) == 0 {
		return
	}
	slots := m.slots()
	n := min(slots, len(m.model.waiting))
	m.model.logf("hand back %d", n)
	var running atomic.Int32
	r := process(m.t, m.queues[0], slots, func(ctx context.Context, _ *beequeue.Job) (any, error) {
		running.Add(1)
		<-ctx.Done()
		return nil, nil
	})
	await(m.t, "the handlers", func() bool { return int(running.Load()) == n })
	require.ErrorIs(m.t, r.stop(), beequeue.ErrUnfinished)
	m.model.handedBack(m.t, n, m.f.waiting())
}

// stall loses a worker that has the next job.
func (m *machine) stall(q *beequeue.Queue) {
	if len(m.model.waiting) == 0 {
		return
	}
	id := m.model.waiting[0]
	m.model.logf("stall %q", id)
	m.f.must("RPOP", "waiting")
	m.f.must("LPUSH", "active", id)
	m.f.must("HSET", "owners", id, "lost/1")
	require.Empty(m.t, m.f.check(q))
	back := m.f.check(q)
	if m.model.stalled(id) {
		require.Equal(m.t, []string{id}, back)
	} else {
		require.Empty(m.t, back)
	}
}

func (m *machine) destroy(q *beequeue.Queue) {
	m.model.logf("destroy")
	_, err := q.Destroy(bounded(m.t))
	require.NoError(m.t, err)
	m.model.clear()
}
