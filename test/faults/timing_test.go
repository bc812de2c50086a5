package faults_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// startsOf runs a worker, and gives when each job started.
func startsOf(q *queue) <-chan time.Time {
	starts := make(chan time.Time, 100)
	q.process(2, func(context.Context, *beequeue.Job) (any, error) {
		starts <- time.Now()
		return nil, nil
	})
	return starts
}

// A delayed job starts within 50 ms of its time on an idle worker, and not before.
//
// Bee-Queue: jobs due within nearTermWindow of each other are raised together,
// and without activateDelayedJobs nobody raises any.
func TestFaultDelayedStartsOnTime(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	q := open(t, queuetest.Dial(t, s.URL()), newName(), beequeue.Config{})
	starts := startsOf(q)
	queuetest.Within(t, "the median of 15 starts after their times", 50*time.Millisecond, func() time.Duration {
		var late []time.Duration
		for i := range 15 {
			due := time.Now().Add(150*time.Millisecond + time.Duration(i)*7*time.Millisecond)
			require.NoError(t, q.CreateJob(i).DelayUntil(due).Save(queuetest.Bounded(t)))
			late = append(late, queuetest.Receive(t, starts, "the job").Sub(due))
		}
		slices.Sort(late)
		t.Logf("late by: least %v, median %v, most %v", late[0], late[len(late)/2], late[len(late)-1])
		assert.GreaterOrEqual(t, late[0], time.Duration(0), "a job started before its time")
		return late[len(late)/2]
	})
	assert.Empty(t, q.errs.list())
}

// Nobody hears that a delayed job is due earlier than the others. It starts nevertheless,
// at most 5 s late.
//
// Bee-Queue: the job waits for the next timer, up to delayedDebounce and longer.
func TestFaultDelayedMessageLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, client, q.KeyPrefix()}
	require.NoError(t, q.CreateJob("later").DelayUntil(time.Now().Add(time.Hour)).Save(queuetest.Bounded(t)))
	starts := startsOf(q)
	queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, client, q.KeyPrefix()) == 1 })
	n := 0
	queuetest.Within(t, "the start of a job that nobody told of", 5500*time.Millisecond, func() time.Duration {
		n++
		id, due := "quiet"+strconv.Itoa(n), time.Now().Add(100*time.Millisecond)
		view.number("HSET", "jobs", id, `{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"created"}`)
		view.number("ZADD", "delayed", strconv.FormatInt(due.UnixMilli(), 10), id) // and no PUBLISH
		return queuetest.Receive(t, starts, "the job").Sub(due)
	})
}

// Looking for delayed and for stalled jobs fails for a while, because a key has another
// type or because Redis is out of reach. OnError gets a few errors a second at most, and
// the rounds go on by themselves.
//
// Bee-Queue: a stall check that fails once ends the checks of that process.
func TestFaultRoundsGoOn(t *testing.T) {
	t.Parallel()
	const stall = 500 * time.Millisecond
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	name := newName()
	saver := open(t, direct, name, beequeue.Config{})
	q := open(t, queuetest.Dial(t, proxy.URL()), name, beequeue.Config{StallInterval: stall})
	view := &keys{t, direct, q.KeyPrefix()}
	done := make(chan string, 10)
	q.process(2, func(_ context.Context, job *beequeue.Job) (any, error) {
		done <- job.ID
		return nil, nil
	})
	// A job of a worker that is gone, and a delayed one.
	check := func(when string) {
		t.Helper()
		lost := "lost " + when
		view.number("HSET", "jobs", lost, `{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"created"}`)
		view.number("LPUSH", "active", lost)
		late := saver.CreateJob(nil).SetID("late " + when).DelayUntil(time.Now().Add(50 * time.Millisecond))
		require.NoError(t, late.Save(queuetest.Bounded(t)))
		assert.ElementsMatch(t, []string{lost, late.ID},
			[]string{queuetest.Receive(t, done, "a job "+when), queuetest.Receive(t, done, "a job "+when)})
		// A run that is cut off before its end is recorded would be run again.
		queuetest.Await(t, "the jobs' end", func() bool { return view.number("LLEN", "active") == 0 })
	}
	check("at first")

	for _, key := range []string{"delayed", "stalling", "workers"} {
		before := q.errs.count()
		// One that holds something is moved out of the way for as long.
		require.NoError(t, direct.Do(queuetest.Bounded(t), direct.B().Set().Key(q.KeyPrefix()+key).Value("no such thing").Build()).Error())
		queuetest.Await(t, "OnError", func() bool { return q.errs.count() > before && q.errs.find(nil, "WRONGTYPE") != nil })
		from, began := q.errs.count(), time.Now()
		tick := time.NewTicker(1500 * time.Millisecond)
		queuetest.Receive(t, tick.C, "some time to pass")
		tick.Stop()
		perSecond := float64(q.errs.count()-from) / time.Since(began).Seconds()
		t.Logf("%s of a wrong type: %.1f errors a second", key, perSecond)
		assert.Less(t, perSecond, 30.0)
		view.number("DEL", key)
		check("after " + key + " was wrong")
	}

	proxy.Block()
	before := q.errs.count()
	queuetest.Await(t, "OnError", func() bool { return q.errs.count() > before })
	tick := time.NewTicker(time.Second)
	queuetest.Receive(t, tick.C, "some time to pass")
	tick.Stop()
	proxy.Unblock(t)
	check("after Redis was out of reach")
	view.allSucceeded(2 * 5)
}

// A key has the wrong type. A save stores nothing of its job and returns the reason. Workers
// report it, too, and do not run hot. All goes on when the key is gone.
//
// Bee-Queue: addJob has stored the record before LPUSH fails, and the job is nowhere. The
// retry of BRPOPLPUSH waits twice as long each time without a bound.
func TestFaultWrongType(t *testing.T) {
	for _, key := range []string{"waiting", "jobs", "delayed", "calls"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			client := queuetest.Dial(t, s.URL())
			q := open(t, client, newName(), beequeue.Config{})
			w := open(t, client, q.Name(), beequeue.Config{})
			view := &keys{t, client, q.KeyPrefix()}
			require.NoError(t, client.Do(queuetest.Bounded(t), client.B().Set().Key(q.KeyPrefix()+key).Value("text").Build()).Error())
			jobs := []*beequeue.Job{
				q.CreateJob(1).DelayUntil(time.Now().Add(time.Minute)), q.CreateJob(2), q.CreateJob(3).SetID("mine"),
			}
			if key == "delayed" {
				jobs = jobs[:1] // the others have nothing to do with it
			}
			for i, job := range jobs {
				err := job.Save(queuetest.Bounded(t))
				require.ErrorContains(t, err, "WRONGTYPE", "job %d", i)
				require.NotErrorIs(t, err, beequeue.ErrUncertain)
			}
			keys, err := client.Do(queuetest.Bounded(t), client.B().Keys().Pattern("*").Build()).AsStrSlice()
			require.NoError(t, err)
			keys = slices.DeleteFunc(keys, func(k string) bool { return k == q.KeyPrefix()+"id" }) // a number may be used up
			require.Equal(t, []string{q.KeyPrefix() + key}, keys, "what is there after saves that failed")

			starts := startsOf(w)
			queuetest.Await(t, "OnError", func() bool { return w.errs.find(nil, "WRONGTYPE") != nil })
			queuetest.Calm(t, "errors told", 2*time.Second, 20, w.errs.count)
			queuetest.Calm(t, "commands", 2*time.Second, 300, func() int { // a worker that runs hot sends thousands
				info, err := client.Do(queuetest.Bounded(t), client.B().Info().Section("stats").Build()).ToString()
				require.NoError(t, err)
				_, rest, _ := strings.Cut(info, "total_commands_processed:")
				number, _, _ := strings.Cut(rest, "\r\n")
				commands, err := strconv.Atoi(number)
				require.NoError(t, err)
				return commands
			})
			view.number("DEL", key)
			q.save("at last")
			queuetest.Receive(t, starts, "the job")
			view.allSucceeded(1)
		})
	}
}

// Redis is out of memory. Saves fail, say so, and store nothing. Running jobs finish, and
// the jobs of lost workers are taken back. All goes on when there is memory.
func TestFaultOutOfMemory(t *testing.T) {
	t.Parallel()
	const stall = time.Second
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{StallInterval: stall, CallTimeout: 2 * time.Second})
	view := &keys{t, client, q.KeyPrefix()}
	limit := func(bytes string) { s.Do(t, "CONFIG", "SET", "maxmemory", bytes, "maxmemory-policy", "noeviction") }
	started, finish := make(chan string, 10), make(chan struct{})
	succeeded := make(chan string, 10)
	q.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { succeeded <- job.ID })
	stop := q.process(1, func(_ context.Context, job *beequeue.Job) (any, error) {
		started <- job.ID
		<-finish
		return "done", nil
	})
	running, waiting := q.save("running"), q.save("waiting")
	require.Equal(t, running.ID, queuetest.Receive(t, started, "the job"))
	view.number("HSET", "jobs", "lost", `{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"created"}`)
	view.number("LPUSH", "active", "lost")
	limit("1")
	before := view.list("HKEYS", "jobs")
	for _, job := range []*beequeue.Job{q.CreateJob(1), q.CreateJob(2).SetID("mine"), q.CreateJob(3).DelayUntil(time.Now().Add(time.Minute))} {
		require.ErrorContains(t, job.Save(queuetest.Bounded(t)), "OOM")
	}
	require.ElementsMatch(t, before, view.list("HKEYS", "jobs"))
	// Several stall intervals: the job is not taken from its worker.
	stays(t, 4*stall, "the job is the worker's", func() bool { return q.errs.find(beequeue.ErrOwnershipLost, "") == nil })
	close(finish)
	require.Equal(t, running.ID, queuetest.Receive(t, succeeded, "the running job to finish"))
	require.ElementsMatch(t, []string{"lost", waiting.ID},
		[]string{queuetest.Receive(t, succeeded, "a waiting job to run"), queuetest.Receive(t, succeeded, "a waiting job to run")})
	limit("0")
	late := q.save("late")
	require.Equal(t, late.ID, queuetest.Receive(t, succeeded, "a job that came later"))
	require.NoError(t, stop())
	view.allSucceeded(4)
}

// A worker that has nothing to do waits instead of asking again and again, also after it
// had much to do.
func TestFaultIdleWorkerIsQuiet(t *testing.T) {
	for _, concurrency := range []int{1, 10, 50} {
		t.Run(strconv.Itoa(concurrency), func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			client := queuetest.Dial(t, s.URL())
			q := open(t, client, newName(), beequeue.Config{})
			view := &keys{t, client, q.KeyPrefix()}
			stop := q.process(concurrency, func(context.Context, *beequeue.Job) (any, error) { return nil, nil })
			jobs := make([]*beequeue.Job, 2000)
			for i := range jobs {
				jobs[i] = q.CreateJob(i)
			}
			require.NoError(t, q.SaveAll(queuetest.Bounded(t), jobs))
			view.allSucceeded(len(jobs))
			waits := func() bool {
				list, err := client.Do(queuetest.Bounded(t), client.B().ClientList().Build()).ToString()
				return err == nil && lineHasAll(list, "cmd=blmove", "flags=b")
			}
			queuetest.Await(t, "the worker to wait", waits)
			// A wait and a turn every 2 s, a sweep and a look at the delayed jobs each
			// interval.
			for command, most := range map[string]int{"evalsha": 7, "blmove": 3} {
				queuetest.Calm(t, command, 3*time.Second, most, func() int { return callsOf(t, client, command) })
			}
			require.NoError(t, stop())
		})
	}
}
