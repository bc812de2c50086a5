//go:build unix

package interop_test

import (
	"context"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Stall intervals: where nobody may miss one, long enough for a machine with
// other things to do; where somebody has to, short.
const (
	calm  = 4 * time.Second
	brisk = 500 * time.Millisecond
)

// stalls are Node's settings for an interval.
func stalls(interval time.Duration) settings {
	return settings{"stallInterval": interval.Milliseconds()}
}

// check has Node check for stalled jobs so often that it is mostly first when a
// check is due, before the Go workers.
func (q *nodeQueue) check(t *testing.T) {
	t.Helper()
	q.call(t, "checkStalledJobs", map[string]any{"interval": 5})
}

func TestNodeLeavesHealthyGoWorkersAlone(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "healthy", func(t *testing.T, s *site) {
		g, n := s.goQueue(t, stallInterval(calm)), s.nodeQueue(t, stalls(calm))
		var runs atomic.Int64
		open := make(chan struct{})
		g.OnStalled(func(id string) { assert.Fail(t, "Go took a job back", id) })
		g.start(t, 3, func(context.Context, *beequeue.Job) (any, error) {
			runs.Add(1)
			<-open
			return "done", nil
		})
		n.check(t)
		ids := n.saveAll(t, make([]nodeJob, 3))
		s.awaitStallChecks(t, 2)
		close(open)
		for _, id := range ids {
			assert.Equal(t, "done", n.await(t, "queue", "job succeeded", id).text())
		}
		assert.Equal(t, int64(3), runs.Load())
		n.node.sync(t)
		assert.Empty(t, n.all("queue", "stalled"))
	})
}

func TestGoLeavesHealthyNodeWorkersAlone(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "healthy-node", func(t *testing.T, s *site) {
		g, n := s.goQueue(t, stallInterval(calm)), s.nodeQueue(t, stalls(calm))
		n.process(t, 2, "hold", nil)
		first, second := save(t, g.CreateJob(1)), save(t, g.CreateJob(2))
		for _, job := range []*beequeue.Job{first, second} {
			n.await(t, "handler", "start", job.ID)
		}
		g.OnStalled(func(id string) { assert.Fail(t, "Go took a job back", id) })
		g.start(t, 1, unwanted(t)) // it makes the checks
		s.awaitStallChecks(t, 2)
		n.do(t, "release", "")
		for _, job := range []*beequeue.Job{first, second} {
			n.await(t, "queue", "succeeded", job.ID)
		}
		n.node.sync(t)
		assert.Len(t, n.all("handler", "start"), 2)
	})
}

func TestNodeRecoversDeadGoWorkersJob(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "dead-go", func(t *testing.T, s *site) {
		g, n := s.goQueue(t, stallInterval(brisk)), s.nodeQueue(t, stalls(brisk))
		job := save(t, g.CreateJob("again"))
		dead := s.startProcess(t, brisk)
		dead.await(t, "start "+job.ID)
		dead.signal(t, syscall.SIGKILL)

		done := s.listen(t, job.ID)
		n.process(t, 1, "echo", nil)
		n.check(t)
		n.await(t, "queue", "stalled", job.ID)
		got := receive(t, done, "the result")
		require.NoError(t, got.err)
		assert.JSONEq(t, `"again"`, got.result)
		n.node.sync(t)
		assert.Len(t, n.all("handler", "start"), 1)

		// The next Go worker clears up what the dead one left.
		n.close(t)
		g.start(t, 1, unwanted(t))
		require.Eventually(t, func() bool {
			owners, err := s.do("HLEN", "owners").AsInt64()
			return err == nil && owners == 0
		}, patience, 20*time.Millisecond, "owners of the dead worker are left")
	})
}

func TestGoRecoversDeadNodeWorkersJob(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "dead-node", func(t *testing.T, s *site) {
		g, n := s.goQueue(t, stallInterval(brisk)), s.nodeQueue(t, stalls(brisk))
		id := n.save(t, nodeJob{Data: "again"})
		doomed := startNode(t)
		dead := s.nodeQueueIn(t, doomed, stalls(brisk))
		dead.process(t, 1, "hang", nil)
		dead.await(t, "handler", "start", id)
		doomed.kill(t)

		stalled := make(chan string, 10)
		g.OnStalled(func(id string) { stalled <- id })
		g.start(t, 1, echo)
		assert.Equal(t, id, receive(t, stalled, "a stalled job"))
		assert.JSONEq(t, `"again"`, string(n.await(t, "job", "succeeded", id).Data))
		assert.Empty(t, stalled)
		assert.Equal(t, "succeeded", n.job(t, id).Status)
	})
}

// A job that kills its Node worker each time is failed by Go after MaxStalls, and
// Node hears why.
func TestJobThatKillsNodeWorkers(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "killer", func(t *testing.T, s *site) {
		g := s.goQueue(t, stallInterval(brisk), func(c *beequeue.Config) { c.MaxStalls = 1 })
		n := s.nodeQueue(t, stalls(brisk))
		id := n.save(t, nodeJob{Retries: 5})
		// No Go worker, only its checks: the job is Node's to run.
		check := func(until func() bool) {
			require.Eventually(t, func() bool {
				_, err := g.CheckStalled(t.Context())
				return assert.NoError(t, err) && until()
			}, patience, 20*time.Millisecond)
		}
		for death := range 2 {
			doomed := startNode(t)
			dead := s.nodeQueueIn(t, doomed, stalls(brisk))
			dead.process(t, 1, "hang", nil)
			dead.await(t, "handler", "start", id)
			doomed.kill(t)
			check(func() bool { return slices.Equal(s.places(t)[id], []string{[]string{"waiting", "failed"}[death]}) })
		}
		assert.Equal(t, "job stalled 2 times: its worker died or was cut off in each of its last runs",
			n.await(t, "job", "failed", id).text())
		assert.Equal(t, 5, n.job(t, id).Options.Retries)
	})
}

// Workers of both kinds die while they have jobs, and the others do all that is
// left.
func TestWorkersDieAtWork(t *testing.T) {
	const count = 150
	w := newWorld(t)
	w.eachLayout(t, "deaths", func(t *testing.T, s *site) {
		g, n := s.goQueue(t, stallInterval(brisk)), s.nodeQueue(t, stalls(brisk))
		n.saveAll(t, make([]nodeJob, count))
		deadGo, doomed := s.startProcess(t, brisk), startNode(t)
		deadNode := s.nodeQueueIn(t, doomed, stalls(brisk))
		deadGo.await(t, "start ")
		deadNode.process(t, 5, "slow", map[string]any{"ms": 20})
		deadNode.awaitSome(t, 20, "handler", "start", "")
		doomed.kill(t)
		deadGo.signal(t, syscall.SIGKILL)

		n.process(t, 3, "slow", map[string]any{"ms": 1})
		n.check(t)
		work := g.start(t, 3, echo)
		require.Eventually(t, func() bool {
			counts, err := g.Counts(t.Context())
			return err == nil && counts.Succeeded == count && counts.Active == 0 && counts.Waiting == 0
		}, patience, 20*time.Millisecond)
		work.stop()
		// On a busy machine, they too may be taken for lost now and then.
		g.forgive()
		n.close(t)
	})
}

// A Go worker is stopped until Node takes its job back and finishes it. Then the worker
// goes on, and that changes nothing.
func TestGoWorkerComesBackTooLate(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "late", func(t *testing.T, s *site) {
		g, n := s.goQueue(t, stallInterval(brisk)), s.nodeQueue(t, stalls(brisk))
		job := save(t, g.CreateJob("Node's"))
		late := s.startProcess(t, brisk)
		late.await(t, "start "+job.ID)
		late.signal(t, syscall.SIGSTOP)
		n.process(t, 1, "echo", nil)
		n.check(t)
		n.await(t, "queue", "stalled", job.ID)
		n.await(t, "queue", "succeeded", job.ID)
		n.close(t)
		before := s.rawRecord(t, job.ID)

		late.signal(t, syscall.SIGCONT)
		late.tell("Go's")
		late.await(t, beequeue.ErrOwnershipLost.Error())
		assert.Equal(t, before, s.rawRecord(t, job.ID))
		assert.Equal(t, []string{"succeeded"}, s.places(t)[job.ID])
		// It works on.
		next := save(t, g.CreateJob(nil))
		late.await(t, "start "+next.ID)
		late.tell("Go's")
		late.await(t, "end "+next.ID)
		assert.JSONEq(t, `"Go's"`, string(g.get(t, next.ID).Result))
	})
}
