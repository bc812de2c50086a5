package faults_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// traffic is a queue in use: goroutines that save jobs, and two workers.
type traffic struct {
	t       *testing.T
	q       *queue
	workers []*queue
	runs    runCounts
	ran     atomic.Int64

	mu   sync.Mutex
	ids  []string // of jobs whose Save returned nil
	quit chan struct{}
	wg   sync.WaitGroup
}

// startTraffic starts traffic. The producer and each worker have a client of their own.
func startTraffic(t *testing.T, url string, config beequeue.Config) *traffic {
	t.Helper()
	name := newName()
	config.CallTimeout = queuetest.Patience
	u := &traffic{t: t, q: open(t, queuetest.Dial(t, url), name, config), quit: make(chan struct{})}
	for range 2 {
		w := open(t, queuetest.Dial(t, url), name, config)
		u.workers = append(u.workers, w)
		w.process(20, func(_ context.Context, job *beequeue.Job) (any, error) {
			u.runs.ran(job.ID)
			u.ran.Add(1)
			return nil, nil
		})
	}
	for range 4 {
		u.wg.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-u.quit:
					return
				case <-tick.C:
				}
				job := u.q.CreateJob(nil)
				if err := job.Save(context.Background()); err != nil {
					t.Errorf("save: %v", err)
					return
				}
				u.mu.Lock()
				u.ids = append(u.ids, job.ID)
				u.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { u.endSaves() })
	u.flows("at first")
	return u
}

// flows waits until 50 more jobs have run, and gives how long the first took.
func (u *traffic) flows(when string) time.Duration {
	u.t.Helper()
	began, before := time.Now(), u.ran.Load()
	queuetest.Await(u.t, "jobs to be run "+when, func() bool { return u.ran.Load() > before })
	first := time.Since(began)
	queuetest.Await(u.t, "jobs to be run "+when, func() bool { return u.ran.Load() >= before+50 })
	return first
}

// resumes is flows after a fault. How soon that must be, the chaos suite checks.
func (u *traffic) resumes(after string) {
	u.t.Helper()
	first := u.flows("after " + after)
	u.t.Logf("work resumed %v after %s", first.Round(time.Millisecond), after)
}

func (u *traffic) endSaves() []string {
	u.mu.Lock()
	select {
	case <-u.quit:
	default:
		close(u.quit)
	}
	u.mu.Unlock()
	u.wg.Wait()
	return u.ids
}

// end stops the saves, and requires that every acknowledged job has run and that no other
// job is there. Unless doubled, each must have run only once.
func (u *traffic) end(view *keys, doubled bool) {
	u.t.Helper()
	ids := u.endSaves()
	view.allSucceeded(len(ids))
	u.runs.once(u.t, ids, doubled)
	u.t.Logf("%d jobs, %d runs, %d errors told", len(ids), u.ran.Load(), u.errors())
}

func (u *traffic) errors() int {
	n := 0
	for _, w := range u.workers {
		n += w.errs.count()
	}
	return n
}

// Redis is killed and started again with its append-only file.
//
// Bee-Queue: saves under way fail or are sent twice, and jobs whose outcome was
// under way are run again after a stall.
func TestFaultRedisRestart(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	u := startTraffic(t, s.URL(), beequeue.Config{StallInterval: 30 * time.Second})
	view := &keys{t, queuetest.Dial(t, s.URL()), u.q.KeyPrefix()}
	for range 2 {
		before := u.errors()
		s.Kill()
		queuetest.Await(t, "OnError", func() bool { return u.errors() > before })
		s.Restart(t)
		u.resumes("the restart")
	}
	u.end(view, false)
}

// Scripts are flushed and clients killed while the queue is in use.
func TestFaultScriptFlushAndClientKill(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	u := startTraffic(t, s.URL(), beequeue.Config{})
	control := s.Client(t)
	view := &keys{t, control, u.q.KeyPrefix()}
	command := func(words ...string) {
		ctx, cancel := context.WithTimeout(context.Background(), queuetest.Patience)
		defer cancel()
		assert.NoError(t, control.Do(ctx, control.B().Arbitrary(words...).Build()).Error())
	}
	stopFlush := every(100*time.Millisecond, func() { command("SCRIPT", "FLUSH") })
	defer stopFlush()
	u.flows("with scripts flushed")
	assert.Zero(t, u.errors(), "SCRIPT FLUSH is not to be noticed")
	killedAt, ticks := int64(-1), 0
	stopKill := every(130*time.Millisecond, func() {
		// Where clients are slow to come back, only some are killed before they do.
		if ticks++; ticks%5 != 0 && u.ran.Load() == killedAt {
			return
		}
		killedAt = u.ran.Load()
		command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		command("CLIENT", "KILL", "TYPE", "pubsub")
	})
	defer stopKill()
	for range 8 {
		u.flows("with clients killed")
	}
	stopKill()
	u.resumes("the last CLIENT KILL")
	stopFlush()
	u.end(view, false)
}

// Redis does not answer, and then goes on.
func TestFaultRedisFrozen(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	u := startTraffic(t, s.URL(), beequeue.Config{StallInterval: 30 * time.Second})
	view := &keys{t, queuetest.Dial(t, s.URL()), u.q.KeyPrefix()}
	s.Pause(t)
	queuetest.Await(t, "OnError", func() bool { return u.errors() > 0 })
	s.Resume(t)
	u.resumes("the freeze")
	u.end(view, false)
}

// A worker that is started while Redis is down begins to work when it comes up.
// Meanwhile it tries about once a second, and burns no CPU.
//
// Bee-Queue: the pause between tries doubles without a bound.
func TestFaultWorkerWaitsForRedis(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	name := newName()
	q := open(t, queuetest.Dial(t, s.URL()), name, beequeue.Config{})
	w := open(t, queuetest.Dial(t, s.URL()), name, beequeue.Config{})
	running := open(t, queuetest.Dial(t, s.URL()), name, beequeue.Config{})
	done := make(chan string, 10)
	handler := func(_ context.Context, job *beequeue.Job) (any, error) {
		done <- job.ID
		return nil, nil
	}
	running.process(1, handler)
	queuetest.Receive(t, done, q.save(nil).ID)
	queuetest.Await(t, "the end of the run", func() bool {
		counts, err := q.Counts(queuetest.Bounded(t))
		return err == nil && counts.Succeeded == 1
	})
	s.Kill()
	w.process(1, handler)
	queuetest.Await(t, "the worker to notice", func() bool { return w.errs.count() > 0 && running.errs.count() > 0 })

	// The pauses grow in the first of the windows.
	queuetest.Calm(t, "errors of a worker that starts", 3*time.Second, 8, w.errs.count)
	queuetest.Calm(t, "errors of one that ran", 3*time.Second, 30, running.errs.count)
	told := running.errs.count()
	queuetest.Await(t, "the next error", func() bool { return running.errs.count() > told })

	s.Restart(t)
	began := time.Now()
	job := q.save(nil)
	require.Equal(t, job.ID, queuetest.Receive(t, done, "the job"))
	t.Logf("the job was run %v after the start of Redis", time.Since(began).Round(time.Millisecond))
	queuetest.Await(t, "both to work", func() bool {
		return w.Close(queuetest.Bounded(t)) == nil && running.Close(queuetest.Bounded(t)) == nil
	})
}

// All leases run out while a server does not answer for longer than a lease lasts. That is
// no reason to take jobs back, because no worker could phone in.
func TestFaultRedisFrozenTakesNothingBack(t *testing.T) {
	t.Parallel()
	const stall, jobs = 2 * time.Second, 8
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{StallInterval: stall})
	view := &keys{t, client, q.KeyPrefix()}
	var started atomic.Int32
	finish := make(chan struct{})
	handler := func(context.Context, *beequeue.Job) (any, error) {
		started.Add(1)
		<-finish
		return nil, nil
	}
	for range jobs {
		q.save(nil)
	}
	q.process(jobs/2, handler)
	open(t, client, q.Name(), beequeue.Config{StallInterval: stall}).process(jobs/2, handler)
	queuetest.Await(t, "the jobs to run", func() bool { return started.Load() == jobs })
	for range 2 {
		view.stallCheck()
		s.Pause(t)
		pause := time.NewTimer(3 * stall)
		queuetest.Receive(t, pause.C, "the end of the pause")
		s.Resume(t)
		view.stallCheck()
	}
	close(finish)
	view.allSucceeded(jobs)
	require.EqualValues(t, jobs, started.Load(), "no job ran twice")
	require.NoError(t, q.errs.find(beequeue.ErrOwnershipLost, ""))
}

// Leases run out in an outage that begins after a stall check and ends when the next is
// due. The time between the two checks does not show that outage. It is no reason to take
// jobs back.
func TestFaultOutageBetweenChecks(t *testing.T) {
	t.Parallel()
	const stall = 3 * time.Second
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	open := func() *queue {
		return open(t, queuetest.Dial(t, proxy.URL()), "outage", beequeue.Config{StallInterval: stall})
	}
	busy, idle := open(), open()
	view := &keys{t, direct, busy.KeyPrefix()}
	var started atomic.Int32
	finish := make(chan struct{})
	handler := func(context.Context, *beequeue.Job) (any, error) {
		started.Add(1)
		<-finish
		return nil, nil
	}
	busy.save(nil)
	busy.process(1, handler)
	queuetest.Await(t, "the job to run", func() bool { return started.Load() == 1 })
	idle.process(1, handler)
	for range 3 {
		view.stallCheck()
		proxy.Block()
		queuetest.Await(t, "the next check to be due, and no lease to stand", func() bool {
			now := strconv.FormatInt(time.Now().UnixMilli(), 10)
			return view.number("PTTL", "stallBlock") < 0 && view.number("ZCOUNT", "workers", now, "+inf") == 0
		})
		proxy.Unblock(t)
		view.stallCheck()
		view.stallCheck()
	}
	close(finish)
	view.allSucceeded(1)
	require.EqualValues(t, 1, started.Load(), "the job ran twice")
}

// A restart from a snapshot brings back as active what its worker has ended since. That
// worker lives on and knows nothing of such jobs, also not of one that was to be tried
// again. At the default settings and with the load going on, all of them are run again.
func TestFaultSnapshotRestart(t *testing.T) {
	t.Parallel()
	const held = 20
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{CallTimeout: queuetest.Patience})
	view := &keys{t, client, q.KeyPrefix()}
	var runs runCounts
	finish := make(chan struct{})
	q.process(2*held, func(_ context.Context, job *beequeue.Job) (any, error) {
		n := runs.ran(job.ID)
		if string(job.Data) == `"load"` {
			return nil, nil
		}
		<-finish
		if n == 1 && string(job.Data) == `"fails once"` {
			return nil, queuetest.ErrBroken
		}
		return nil, nil
	})
	ids := make([]string, 0, held)
	for i := range held {
		job := q.CreateJob("held")
		if i%4 == 0 {
			job = q.CreateJob("fails once").Retries(1).Backoff(beequeue.Fixed, time.Hour)
		}
		require.NoError(t, job.Save(queuetest.Bounded(t)))
		ids = append(ids, job.ID)
	}
	queuetest.Await(t, "the jobs to run", func() bool { return view.number("LLEN", "active") == held })
	s.Do(t, "SAVE")
	close(finish)
	queuetest.Await(t, "the jobs to end", func() bool { return view.number("LLEN", "active") == 0 })
	s.Kill()
	s.Restart(t)
	began := time.Now()
	stop := every(2*time.Millisecond, func() { _ = q.CreateJob("load").Save(context.Background()) })
	defer stop()
	queuetest.Await(t, "the jobs to be run again", func() bool {
		for _, id := range ids {
			if runs.of(id) < 2 {
				return false
			}
		}
		return true
	})
	t.Logf("after %v, at an interval of 5 s", time.Since(began).Round(time.Millisecond))
	stop()
	queuetest.Await(t, "the load to end", func() bool {
		return view.number("LLEN", "waiting") == 0 && view.number("LLEN", "active") == 0 && view.number("HLEN", "owners") == 0
	})
	view.check()
}
