package faults_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A worker that waits has an id moved from waiting to taken, and its turn claims it from
// there. These tests look at what becomes of taken where that turn does not come.

// scriptsRun reads how many scripts a server has run.
func scriptsRun(t *testing.T, v *keys) (n int64) {
	t.Helper()
	info, err := v.client.Do(queuetest.Bounded(t), v.client.B().Info().Section("commandstats").Build()).ToString()
	require.NoError(t, err)
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			calls, _, _ := strings.Cut(rest, ",")
			n, err = strconv.ParseInt(calls, 10, 64)
			require.NoError(t, err)
		}
	}
	return n
}

// One job wakes one of many idle workers.
func TestOneJobWakesOneWorker(t *testing.T) {
	t.Parallel()
	const idle, jobs = 40, 60
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	view := &keys{t, client, ""}
	var first *queue
	var ran atomic.Int64
	name := newName()
	for range idle {
		q := open(t, queuetest.Dial(t, s.URL()), name, beequeue.Config{StallInterval: time.Minute})
		q.process(1, func(context.Context, *beequeue.Job) (any, error) {
			ran.Add(1)
			return nil, nil
		})
		if first == nil {
			first = q
			view.prefix = q.KeyPrefix()
		}
	}
	blocked := func() bool {
		info, err := client.Do(queuetest.Bounded(t), client.B().Info().Section("clients").Build()).ToString()
		return err == nil && strings.Contains(info, fmt.Sprintf("blocked_clients:%d\r", idle))
	}
	queuetest.Await(t, "all to wait", blocked)
	before, began := scriptsRun(t, view), time.Now()
	for range jobs {
		done := ran.Load()
		first.save(nil)
		queuetest.Await(t, "the job to run", func() bool { return ran.Load() > done })
	}
	queuetest.Await(t, "all to wait", blocked)
	took, scripts := time.Since(began), scriptsRun(t, view)-before
	// By themselves: a turn every 2 s, a look at the delayed jobs every 5 s.
	byThemselves := idle * took.Seconds() * (1/2. + 1/5.)
	each := (float64(scripts) - byThemselves) / jobs
	t.Logf("%.1f scripts a job", each)
	require.Less(t, each, idle/4., "a save and two turns are right; %d scripts in %v", scripts, took)
}

// Connections that wait are cut, over and over, while jobs are saved one by one. None is
// lost, and none runs twice.
func TestPoppersKilled(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	u := startTraffic(t, s.URL(), beequeue.Config{StallInterval: 30 * time.Second})
	control := s.Client(t)
	view := &keys{t, control, u.q.KeyPrefix()}
	for kills := 0; kills < 300; {
		list, err := control.Do(queuetest.Bounded(t), control.B().ClientList().Build()).ToString()
		require.NoError(t, err)
		for line := range strings.Lines(list) {
			fields := strings.Fields(line)
			if len(fields) > 0 && strings.Contains(line, "flags=b") {
				id, _ := strings.CutPrefix(fields[0], "id=")
				n, err := strconv.ParseInt(id, 10, 64)
				require.NoError(t, err)
				if control.Do(queuetest.Bounded(t), control.B().ClientKill().Id(n).Build()).Error() == nil { // it may be gone
					kills++
				}
			}
		}
	}
	u.flows("after the kills")
	u.end(view, false)
	assert.Zero(t, view.number("LLEN", "taken"))
}

// Where turns are refused, a job goes back to waiting, for Node's workers and for those
// who are not refused. It does not stay in taken, and no further jobs follow it there.
func TestRefusedTurnsTakeNothing(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, client, q.KeyPrefix()}
	var ran atomic.Int64
	q.process(4, func(context.Context, *beequeue.Job) (any, error) {
		ran.Add(1)
		return nil, nil
	})
	q.save(nil)
	queuetest.Await(t, "the worker to work", func() bool { return ran.Load() == 1 && view.number("LLEN", "active") == 0 })
	view.number("DEL", "owners")
	require.NoError(t, view.do("SET", "owners", "not a hash").Error())
	const jobs = 5
	for range jobs {
		q.save(nil)
	}
	queuetest.Await(t, "turns to be refused", func() bool { return q.errs.find(nil, "WRONGTYPE") != nil })
	for range 20 {
		queuetest.Await(t, "all jobs to be in waiting", func() bool {
			return view.number("LLEN", "waiting") == jobs && view.number("LLEN", "taken") == 0
		})
	}
	view.number("DEL", "owners")
	queuetest.Await(t, "the jobs to run", func() bool { return ran.Load() == jobs+1 })
	view.allSucceeded(jobs + 1)
}

// Idle workers stop while jobs are saved. No job stays in taken, where no worker of Node's
// would find it, unless Redis hears of the closed connection after the save and after the
// worker's last turn, all at the same time. Then the next worker finds it.
func TestStoppedWorkerLeavesNothingTaken(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	producer := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, client, producer.KeyPrefix()}
	const rounds = 200
	left, ran := 0, atomic.Int64{}
	for range rounds {
		q := open(t, queuetest.Dial(t, s.URL()), producer.Name(), beequeue.Config{})
		stop := q.process(2, func(context.Context, *beequeue.Job) (any, error) {
			ran.Add(1)
			return nil, nil
		})
		before := ran.Load()
		producer.save(nil)
		queuetest.Await(t, "a run", func() bool { return ran.Load() > before })
		saves := make(chan struct{})
		go func() {
			defer close(saves)
			_ = producer.CreateJob(nil).Save(context.Background())
		}()
		require.NoError(t, stop())
		<-saves
		if view.number("LLEN", "taken") > 0 {
			left++
		}
	}
	require.Less(t, left, rounds/10, "rounds that left something in taken")
	require.NoError(t, producer.Drain(queuetest.Bounded(t), 2, func(context.Context, *beequeue.Job) (any, error) { return nil, nil }))
	view.allSucceeded(2 * rounds)
}
