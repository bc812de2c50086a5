package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// The reply of a save is lost after Redis ran it; Save returns nil, and the job
// is there once.
//
// Bee-Queue: the caller gets an error and saves again, and the job is there twice. When
// ioredis resends by itself, the job is there twice, too.
func TestFaultSaveReplyLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	q := open(t, queuetest.Dial(t, proxy.URL()), newName(), beequeue.Config{})
	view := &keys{t, direct, q.KeyPrefix()}
	require.NoError(t, q.Ready(queuetest.Bounded(t)))
	for i := range 5 {
		job := q.CreateJob(i)
		if i == 3 {
			job.SetID("mine")
		}
		if i == 4 {
			job.DelayUntil(time.Now().Add(time.Hour))
		}
		proxy.DropReplies(1+i%2, queuetest.IsScript) // of the repeated call, too
		require.NoError(t, job.Save(queuetest.Bounded(t)), "save %d", i)
		require.NotEmpty(t, job.ID)
		require.Equal(t, int64(i+1), view.number("HLEN", "jobs"), "records after %d saves", i+1)
		require.Len(t, view.places(), i+1)
	}
	require.Positive(t, proxy.Dropped(), "the proxy has lost no reply")
	view.check()
}

// The job was processed and its record removed before the save is repeated. It
// is not enqueued again.
//
// Bee-Queue: an id that is gone from the hash is free, so the job runs twice.
func TestFaultSaveReplyLostAfterJobIsGone(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	gate := redistest.StartGate(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	name := newName()
	worker := open(t, direct, name, beequeue.Config{RemoveOnSuccess: true})
	q := open(t, queuetest.Dial(t, gate.URL()), name, beequeue.Config{})
	view := &keys{t, direct, q.KeyPrefix()}
	require.NoError(t, q.Ready(queuetest.Bounded(t)))
	var runs runCounts
	done := make(chan string, 10)
	worker.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { done <- job.ID })
	stop := worker.process(4, func(_ context.Context, job *beequeue.Job) (any, error) {
		runs.ran(job.ID)
		return nil, nil
	})
	queuetest.Receive(t, done, q.save(nil).ID) // loads the script
	for _, id := range []string{"", "mine"} {
		job := q.CreateJob(nil)
		if id != "" {
			job.SetID(id)
		}
		gate.Hold()
		saved := make(chan error, 1)
		go func() { saved <- job.Save(queuetest.Bounded(t)) }()
		ran := queuetest.Receive(t, done, "the job to be processed")
		queuetest.Await(t, "the record to be removed", func() bool { return view.number("HLEN", "jobs") == 0 })
		gate.CutAll()
		require.NoError(t, queuetest.Receive(t, saved, "Save to return"))
		assert.Equal(t, ran, job.ID)
		assert.Equal(t, 1, runs.of(ran))
		assert.Zero(t, view.number("LLEN", "waiting"))
	}
	require.NoError(t, stop())
	require.Zero(t, view.number("HLEN", "jobs"))
}

// SaveAll of many jobs while its connection is cut again and again.
//
// Bee-Queue: saveAll's pipeline has no names, what is sent again is saved again.
func TestFaultSaveAllWithCuts(t *testing.T) {
	t.Parallel()
	const n = 1200
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	q := open(t, queuetest.Dial(t, proxy.URL()), newName(), beequeue.Config{})
	view := &keys{t, queuetest.Dial(t, s.URL()), q.KeyPrefix()}
	require.NoError(t, q.Ready(queuetest.Bounded(t)))
	jobs := make([]*beequeue.Job, n)
	for i := range jobs {
		jobs[i] = q.CreateJob(strings.Repeat("x", 2000))
	}
	proxy.DropReplies(2, queuetest.IsScript)
	stop := every(7*time.Millisecond, proxy.CutAll)
	defer stop()
	cutting := time.AfterFunc(time.Second, stop)
	defer cutting.Stop()
	require.NoError(t, q.SaveAll(queuetest.Bounded(t), jobs))
	stop()
	waiting := view.list("LRANGE", "waiting", "0", "-1")
	require.Len(t, waiting, n)
	for i, job := range jobs {
		require.Equal(t, job.ID, waiting[n-1-i], "job %d: in order", i)
	}
	view.check()
}

// Connections are cut at random under 2,000 saves. An acknowledged job is there once. An
// uncertain job is there at most once, and is there once after it is saved again.
func TestFaultConcurrentSavesWithCuts(t *testing.T) {
	t.Parallel()
	const savers, each = 100, 20
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	q := open(t, queuetest.Dial(t, proxy.URL()), newName(), beequeue.Config{CallTimeout: 150 * time.Millisecond})
	view := &keys{t, queuetest.Dial(t, s.URL()), q.KeyPrefix()}
	require.NoError(t, q.Ready(queuetest.Bounded(t)))

	stop := every(15*time.Millisecond, func() {
		switch rand.N(3) {
		case 0:
			proxy.CutAll()
		case 1:
			proxy.DropReplies(1, queuetest.IsScript)
		}
	})
	defer stop()
	var mu sync.Mutex
	var saved, uncertain, refused []*beequeue.Job
	var wg sync.WaitGroup
	for i := range savers {
		wg.Go(func() {
			for j := range each {
				job := q.CreateJob(i*each + j)
				err := job.Save(context.Background())
				mu.Lock()
				switch {
				case err == nil:
					saved = append(saved, job)
				case errors.Is(err, beequeue.ErrUncertain):
					uncertain = append(uncertain, job)
				default:
					refused = append(refused, job)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	stop()
	t.Logf("saved %d, uncertain %d, certainly not saved %d", len(saved), len(uncertain), len(refused))
	stored := make(map[string]bool)
	for _, id := range view.list("HKEYS", "jobs") {
		stored[id] = true
	}
	ids := make(map[string]bool)
	for _, job := range saved {
		require.True(t, stored[job.ID], "job %q was acknowledged and is not there", job.ID)
		require.False(t, ids[job.ID], "id %q was given twice", job.ID)
		ids[job.ID] = true
	}
	require.LessOrEqual(t, len(stored), len(saved)+len(uncertain))
	for _, job := range append(uncertain, refused...) {
		require.NoError(t, job.Save(queuetest.Bounded(t)))
		require.False(t, ids[job.ID], "id %q was given twice", job.ID)
		ids[job.ID] = true
	}
	require.Len(t, ids, savers*each)
	require.Equal(t, int64(savers*each), view.number("HLEN", "jobs"))
	view.check()
	seen := make(map[string]bool)
	for id := range ids {
		job, err := q.GetJob(queuetest.Bounded(t), id)
		require.NoError(t, err)
		require.False(t, seen[string(job.Data)], "data %s is there twice", job.Data)
		seen[string(job.Data)] = true
	}
}

// Redis is away until after the deadline of Save. A second Save of the same job stores it
// once.
func TestFaultSaveWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	gate := redistest.StartGate(t, s.Addr)
	q := open(t, queuetest.Dial(t, gate.URL()), newName(), beequeue.Config{CallTimeout: time.Minute})
	view := &keys{t, queuetest.Dial(t, s.URL()), q.KeyPrefix()}
	q.save("first") // loads the script

	// The reply is late: the job is there, Save cannot know.
	late := q.CreateJob("late")
	gate.Hold()
	ended, cancel := context.WithCancel(context.Background())
	saved := make(chan error, 1)
	go func() { saved <- late.Save(ended) }()
	queuetest.Await(t, "the job to be stored", func() bool { return view.number("HLEN", "jobs") == 2 })
	cancel()
	err := queuetest.Receive(t, saved, "Save")
	require.ErrorIs(t, err, beequeue.ErrUncertain)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, late.Save(ended), beequeue.ErrUncertain)
	gate.CutAll()
	require.NoError(t, late.Save(queuetest.Bounded(t)))
	require.Equal(t, int64(2), view.number("HLEN", "jobs"))

	// The server is gone.
	s.Kill()
	gone := make([]*beequeue.Job, 30)
	for i := range gone {
		gone[i] = q.CreateJob(i)
	}
	brief, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = q.SaveAll(brief, gone)
	require.Error(t, err)
	require.Less(t, time.Since(began), 20*time.Second, "it is not for CallTimeout to end it")
	var all *beequeue.SaveAllError
	require.ErrorAs(t, err, &all)
	require.Len(t, all.Errors, len(gone))
	s.Restart(t)
	require.NoError(t, q.SaveAll(queuetest.Bounded(t), gone))
	require.Equal(t, int64(2+len(gone)), view.number("HLEN", "jobs"))
	view.check()
	require.ErrorContains(t, all, "not")
}

// A very large SaveAll gives up at once when its context ends, and the jobs that were not
// sent can be saved again.
func TestFaultLargeSaveAllGivesUp(t *testing.T) {
	t.Parallel()
	const n = 20_000
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	q := open(t, queuetest.Dial(t, proxy.URL()), newName(), beequeue.Config{CallTimeout: time.Minute})
	view := &keys{t, queuetest.Dial(t, s.URL()), q.KeyPrefix()}
	q.save(nil)
	proxy.Block()
	jobs := make([]*beequeue.Job, n)
	for i := range jobs {
		jobs[i] = q.CreateJob(i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := q.SaveAll(ctx, jobs)
	t.Logf("SaveAll of %d gave up after %v", n, time.Since(began).Round(time.Millisecond))
	var all *beequeue.SaveAllError
	require.ErrorAs(t, err, &all)
	require.Len(t, all.Errors, n)
	require.Less(t, time.Since(began), 20*time.Second, "it is not for CallTimeout to end it")
	proxy.Unblock(t)
	require.NoError(t, q.SaveAll(queuetest.Bounded(t), jobs))
	require.Equal(t, int64(n+1), view.number("HLEN", "jobs"))
	require.Equal(t, int64(n+1), view.number("LLEN", "waiting"))
}

// A call is repeated after its reply was lost, and the repetition is refused. A refusal does
// not tell what became of the first call, so the call is repeated until it is answered.
func TestFaultRefusalAfterLostReply(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	gate := redistest.StartGate(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	name := newName()
	saver := open(t, direct, name, beequeue.Config{})
	q := open(t, queuetest.Dial(t, gate.URL()), name, beequeue.Config{})
	view := &keys{t, direct, q.KeyPrefix()}
	require.NoError(t, q.RemoveJob(queuetest.Bounded(t), saver.save(nil).ID)) // loads the script

	job := q.CreateJob(nil)
	gate.Hold()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	saved := make(chan error, 1)
	go func() { saved <- job.Save(ctx) }()
	queuetest.Await(t, "the job to be stored", func() bool { return view.number("HLEN", "jobs") == 1 })
	require.NoError(t, setACL(direct, "-evalsha"))
	gate.CutAll()
	err := queuetest.Receive(t, saved, "Save to return")
	require.NoError(t, setACL(direct, "+evalsha"))
	if err != nil {
		require.ErrorIs(t, err, beequeue.ErrUncertain)
		require.NoError(t, job.Save(queuetest.Bounded(t)))
	}
	require.Equal(t, int64(1), view.number("HLEN", "jobs"))

	require.NoError(t, saver.RemoveJob(queuetest.Bounded(t), job.ID))
}

// The same happens to a claim. The job must not stay in active without its worker knowing,
// for as long as the worker lives.
func TestFaultRefusalAfterLostClaim(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	name := newName()
	saver := open(t, direct, name, beequeue.Config{})
	q := open(t, queuetest.Dial(t, proxy.URL()), name, beequeue.Config{})
	view := &keys{t, direct, q.KeyPrefix()}

	ran, other := make(chan string, 10), make(chan struct{})
	stop := q.process(2, func(_ context.Context, job *beequeue.Job) (any, error) {
		ran <- job.ID
		if string(job.Data) == `"first"` {
			<-other // keeps the worker phoning in
		}
		return nil, nil
	})
	first := saver.save("first")
	require.Equal(t, first.ID, queuetest.Receive(t, ran, "the first job"))
	var calls atomic.Int32
	proxy.DropReplies(2, func(request []byte) bool {
		if !isTurn(request) {
			return false
		}
		n := calls.Add(1)
		if n == 2 { // the call is repeated: refuse it
			assert.NoError(t, setACL(direct, "-evalsha"))
		}
		return n == 1
	})
	queuetest.Await(t, "the call whose reply is to be lost", func() bool { return calls.Load() == 1 })
	second := saver.save("second")
	queuetest.Await(t, "the refusal", func() bool { return q.errs.find(nil, "NOPERM") != nil })
	assert.Len(t, view.list("LRANGE", "active", "0", "-1"), 2)
	require.NoError(t, setACL(direct, "+evalsha"))
	assert.Equal(t, second.ID, queuetest.Receive(t, ran, "the second job"))
	close(other)
	view.allSucceeded(2)
	require.NoError(t, stop())
}

// setACL changes what clients may do.
func setACL(client rueidis.Client, rule string) error {
	ctx, cancel := context.WithTimeout(context.Background(), queuetest.Patience)
	defer cancel()
	return client.Do(ctx, client.B().AclSetuser().Username("default").Rule(rule).Build()).Error()
}

// A Save costs one call while nothing is wrong.
func TestFaultSaveIsOneCall(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	q.save(nil) // loads the script
	require.NoError(t, client.Do(queuetest.Bounded(t), client.B().ConfigResetstat().Build()).Error())
	for range 10 {
		q.save(nil)
	}
	assert.Equal(t, 10, callsOf(t, client, "evalsha"))
	for _, command := range []string{"eval", "script|load", "multi", "watch", "get", "subscribe"} {
		assert.Zero(t, callsOf(t, client, command), command)
	}
	assert.Zero(t, subscribersOf(t, client, q.KeyPrefix()))
}

// callsOf counts how often a server has run a command.
func callsOf(t *testing.T, client rueidis.Client, command string) int {
	t.Helper()
	info, err := client.Do(queuetest.Bounded(t), client.B().Info().Section("commandstats").Build()).ToString()
	require.NoError(t, err)
	for line := range strings.Lines(info) {
		if rest, found := strings.CutPrefix(line, "cmdstat_"+command+":calls="); found {
			digits, _, _ := strings.Cut(rest, ",")
			calls, err := strconv.Atoi(digits)
			require.NoError(t, err)
			return calls
		}
	}
	return 0
}

// subscribersOf counts the subscriptions to a queue's channels.
func subscribersOf(t *testing.T, client rueidis.Client, prefix string) int {
	t.Helper()
	channels, err := client.Do(queuetest.Bounded(t), client.B().PubsubChannels().Build()).AsStrSlice()
	require.NoError(t, err)
	n := 0
	for _, channel := range channels {
		if strings.HasPrefix(channel, prefix) {
			n++
		}
	}
	return n
}
