package faults_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A Save waits until Config.SaveReplicas replicas have the job. If there are too few, the
// job is stored anyway, and the error says that its fate is uncertain.
func TestFaultSaveReplicas(t *testing.T) {
	t.Parallel()
	master := startRedis(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port))
	client := queuetest.Dial(t, master.URL())
	q := open(t, client, newName(), beequeue.Config{SaveReplicas: 1})
	copied := func() int64 {
		message := replica.Do(t, "HLEN", q.KeyPrefix()+"jobs")
		n, err := message.AsInt64()
		require.NoError(t, err)
		return n
	}
	for i := range 20 {
		if i == 10 {
			require.NoError(t, client.Do(queuetest.Bounded(t), client.B().ScriptFlush().Build()).Error())
		}
		q.save(i)
		require.Equal(t, int64(i+1), copied(), "the replica has it when Save returns")
	}
	var jobs []*beequeue.Job
	for i := range 2500 {
		jobs = append(jobs, q.CreateJob(i))
	}
	require.NoError(t, q.SaveAll(queuetest.Bounded(t), jobs))
	require.Equal(t, int64(2520), copied())
	twin := q.CreateJob(nil).SetID(jobs[0].ID)
	require.ErrorIs(t, twin.Save(queuetest.Bounded(t)), beequeue.ErrDuplicateID)

	replica.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second) // a WAIT of 1 s has to end before
	job := q.CreateJob("alone")
	err := job.Save(ctx)
	cancel()
	require.ErrorIs(t, err, beequeue.ErrUncertain)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "0 of 1 replicas have it")
	replica.Resume(t)
	require.NoError(t, job.Save(queuetest.Bounded(t)), "saving it again waits for the replica")
	require.Equal(t, int64(2521), copied())

	_, err = beequeue.New(client, "q", beequeue.Config{SaveReplicas: -1})
	require.ErrorContains(t, err, "SaveReplicas: -1 is negative")
}

// In a cluster, saves find their way while the queue's slot moves, and after a
// failover.
func TestFaultSaveReplicasCluster(t *testing.T) {
	t.Parallel()
	queuetest.SkipShort(t)
	c := redistest.StartCluster(t, redistest.Steady)
	client := queuetest.Dial(t, c.URL())
	q := open(t, client, newName(), beequeue.Config{SaveReplicas: 1, CallTimeout: queuetest.Patience})
	n := 0
	saves := func() {
		for range 50 {
			q.save(n)
			n++
		}
	}
	saves()
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				done <- nil
				return
			default:
			}
			if err := q.CreateJob(i).SetID(fmt.Sprint("meanwhile", i)).Save(context.Background()); err != nil {
				done <- err
				return
			}
		}
	}()
	c.MigrateSlot(t, q.KeyPrefix(), nil)
	saves()
	c.Failover(t, q.KeyPrefix())
	saves()
	close(quit)
	require.NoError(t, queuetest.Receive(t, done, "the other saves"))
	counts, err := q.Counts(queuetest.Bounded(t))
	require.NoError(t, err)
	require.GreaterOrEqual(t, counts.Waiting, int64(n))
	findings, err := q.Audit(queuetest.Bounded(t))
	require.NoError(t, err)
	require.Empty(t, findings)
}

// A Save that Redis's maxmemory stops returns ErrOutOfMemory.
func TestFaultOutOfMemoryHasAName(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--maxmemory-policy", "noeviction")
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	q.save(nil)
	maxmemory := func(value string) {
		require.NoError(t, client.Do(queuetest.Bounded(t), client.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", value).Build()).Error())
	}
	maxmemory("1")
	err := q.CreateJob(nil).SetID("mine").Save(queuetest.Bounded(t))
	require.ErrorIs(t, err, beequeue.ErrOutOfMemory)
	require.NotErrorIs(t, err, beequeue.ErrUncertain)
	_, isReply := rueidis.IsRedisErr(err)
	require.False(t, isReply, "it is wrapped")
	maxmemory("0")
	require.NoError(t, q.CreateJob(nil).SetID("mine").Save(queuetest.Bounded(t)))
}
