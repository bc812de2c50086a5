package faults_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A cluster of three masters with replicas has a failover, a slot that moves to another
// master with all its keys, and a master that is killed. Workers need no restart. A fault
// that loses no data neither loses nor doubles a job.
//
// Bee-Queue: its keys lie in several slots, so it does not run on a cluster.
func TestFaultCluster(t *testing.T) {
	queuetest.SkipShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, redistest.Steady)
	u := startTraffic(t, c.URL(), beequeue.Config{StallInterval: 10 * time.Second})
	view := &keys{t, queuetest.Dial(t, c.URL()), u.q.KeyPrefix()}
	key := u.q.KeyPrefix()

	c.Failover(t, key)
	u.resumes("the failover")
	c.MigrateSlot(t, key, func() { // answers ASK and TRYAGAIN meanwhile
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		queuetest.Receive(t, tick.C, "some calls on half a slot")
	})
	u.resumes("the slot's move")
	u.end(view, false)
}

// A master is killed. Writes that it acknowledged but did not send to its replica are
// lost. Workers go on, and the queue is in order.
func TestFaultClusterMasterKilled(t *testing.T) {
	queuetest.SkipShort(t)
	t.Parallel()
	c := redistest.StartCluster(t)
	u := startTraffic(t, c.URL(), beequeue.Config{StallInterval: time.Second})
	view := &keys{t, queuetest.Dial(t, c.URL()), u.q.KeyPrefix()}
	master := c.MasterFor(t, u.q.KeyPrefix())
	copied := awaitCopy(t, u, master)
	master.Kill()
	c.MasterFor(t, u.q.KeyPrefix()) // waits for another
	u.resumes("the replica took over")
	assert.Positive(t, u.errors())
	requireSettled(t, u, view, copied)
}

// A Sentinel failover, by command and by a killed master.
func TestFaultSentinel(t *testing.T) {
	queuetest.SkipShort(t)
	t.Parallel()
	s := redistest.StartSentinel(t)
	u := startTraffic(t, s.URL(), beequeue.Config{StallInterval: time.Second})
	view := &keys{t, queuetest.Dial(t, s.URL()), u.q.KeyPrefix()}
	copied := awaitCopy(t, u, s.Master(t))
	began := time.Now()
	s.Failover(t)
	t.Logf("the failover took %v", time.Since(began).Round(time.Millisecond))
	u.resumes("the failover")
	requireSettled(t, u, view, copied)
}

// A master that Sentinels watch is killed.
func TestFaultSentinelMasterKilled(t *testing.T) {
	queuetest.SkipShort(t)
	t.Parallel()
	s := redistest.StartSentinel(t)
	u := startTraffic(t, s.URL(), beequeue.Config{StallInterval: time.Second})
	view := &keys{t, queuetest.Dial(t, s.URL()), u.q.KeyPrefix()}
	master := s.Master(t)
	copied := awaitCopy(t, u, master)
	master.Kill()
	s.Master(t)
	u.resumes("the replica took over")
	assert.Positive(t, u.errors())
	requireSettled(t, u, view, copied)
}

// awaitCopy gives the jobs that were acknowledged so far, and waits until a replica
// has them.
func awaitCopy(t *testing.T, u *traffic, master *redistest.Server) map[string]bool {
	t.Helper()
	copied := make(map[string]bool)
	u.mu.Lock()
	for _, id := range u.ids {
		copied[id] = true
	}
	u.mu.Unlock()
	require.NotEmpty(t, copied)
	queuetest.Await(t, "the replica", func() bool {
		master.Do(t, "SET", u.q.KeyPrefix()+"copied", "what was written before it is there, too")
		message := master.Do(t, "WAIT", "1", "5000")
		n, err := message.AsInt64()
		return err == nil && n > 0
	})
	return copied
}

// requireSettled stops the saves, waits until all remaining jobs have run, and checks the
// queue. Jobs may be lost, because replication is asynchronous, but no copied job may. It
// logs how many were lost.
func requireSettled(t *testing.T, u *traffic, view *keys, copied map[string]bool) {
	t.Helper()
	ids := u.endSaves()
	queuetest.Await(t, "the queue to be empty", func() bool {
		return view.number("LLEN", "waiting") == 0 && view.number("LLEN", "active") == 0 && view.number("ZCARD", "delayed") == 0
	})
	queuetest.Await(t, "one view of one place for each job", view.settled)
	view.check()
	lost, doubled := 0, 0
	for _, id := range ids {
		switch n := u.runs.of(id); {
		case n == 0:
			assert.False(t, copied[id], "job %q is lost, and a replica had it", id)
			lost++
		case n > 1:
			doubled++
		}
	}
	t.Logf("%d jobs: %d lost with their master, %d run more than once; %d errors told", len(ids), lost, doubled, u.errors())
}
