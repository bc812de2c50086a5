package faults_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// The tests of this package break a real redis-server and the connections to it, and check
// what docs/guarantees.md promises. Each test starts the servers it needs.

// startRedis starts a server of the test's own.
func startRedis(t *testing.T, args ...string) *redistest.Server {
	t.Helper()
	queuetest.SkipShort(t)
	return redistest.Start(t, args...)
}

// isTurn reports whether a request is a turn: outcomes in, jobs out.
func isTurn(request []byte) bool { return queuetest.Runs(request, "turn") }

// stays checks that a condition holds for some time.
func stays(t *testing.T, d time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		require.True(t, holds(), what)
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}

// every calls f at an interval until the returned func is called.
func every(interval time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		<-done
	})
}

// errorLog has the errors that OnError got.
type errorLog struct {
	mu  sync.Mutex
	all []error
}

func (e *errorLog) add(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, err)
}

func (e *errorLog) list() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

func (e *errorLog) count() int { return len(e.list()) }

// find gives the first error that wraps target and whose text has part.
func (e *errorLog) find(target error, part string) error {
	for _, err := range e.list() {
		if (target == nil || errors.Is(err, target)) && strings.Contains(err.Error(), part) {
			return err
		}
	}
	return nil
}

var queueNumber atomic.Int64 // names queues

// newName gives a queue name that no other test uses.
func newName() string { return fmt.Sprintf("fault%d", queueNumber.Add(1)) }

// queue is a queue value and the errors that its OnError got. It is closed when the test
// is over.
type queue struct {
	*beequeue.Queue
	t    *testing.T
	errs errorLog
}

func open(t *testing.T, client rueidis.Client, name string, config beequeue.Config) *queue {
	t.Helper()
	q, err := beequeue.New(client, name, config)
	require.NoError(t, err)
	f := &queue{Queue: q, t: t}
	q.OnError(f.errs.add)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = q.Close(ctx) // tests that care close it themselves
	})
	return f
}

// process starts Process; the returned func stops it and gives its error.
func (f *queue) process(concurrency int, handler beequeue.Handler) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Process(ctx, concurrency, handler) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	f.t.Cleanup(func() { _ = stop() })
	return stop
}

// save saves a job that must be accepted.
func (f *queue) save(data any) *beequeue.Job {
	f.t.Helper()
	job := f.CreateJob(data)
	require.NoError(f.t, job.Save(queuetest.Bounded(f.t)))
	return job
}

// keys reads a queue's keys without the library.
type keys struct {
	t      *testing.T
	client rueidis.Client
	prefix string
}

func (v *keys) do(command, suffix string, args ...string) rueidis.RedisResult {
	v.t.Helper()
	var result rueidis.RedisResult
	queuetest.Await(v.t, command+" "+suffix, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		result = v.client.Do(ctx, v.client.B().Arbitrary(command).Keys(v.prefix+suffix).Args(args...).Build())
		err := result.Error()
		_, reply := rueidis.IsRedisErr(err)
		return err == nil || reply
	})
	return result
}

func (v *keys) list(command, suffix string, args ...string) []string {
	v.t.Helper()
	values, err := v.do(command, suffix, args...).AsStrSlice()
	require.NoError(v.t, err, "%s %s", command, suffix)
	return values
}

func (v *keys) number(command, suffix string, args ...string) int64 {
	v.t.Helper()
	n, err := v.do(command, suffix, args...).AsInt64()
	require.NoError(v.t, err, "%s %s", command, suffix)
	return n
}

func (v *keys) record(id string) string {
	v.t.Helper()
	record, err := v.do("HGET", "jobs", id).ToString()
	require.NoError(v.t, err)
	return record
}

// places gives the keys that each id is in.
func (v *keys) places() map[string][]string {
	v.t.Helper()
	found := make(map[string][]string)
	note := func(place string, ids []string) {
		for _, id := range ids {
			found[id] = append(found[id], place)
		}
	}
	note("waiting", v.list("LRANGE", "waiting", "0", "-1"))
	note("active", v.list("LRANGE", "active", "0", "-1"))
	note("delayed", v.list("ZRANGE", "delayed", "0", "-1"))
	note("succeeded", v.list("SMEMBERS", "succeeded"))
	note("failed", v.list("SMEMBERS", "failed"))
	return found
}

// check requires that every record is in exactly one place, and that every id in a place
// has a record. Nobody may use the queue meanwhile.
func (v *keys) check() {
	v.t.Helper()
	places := v.places()
	records := v.list("HKEYS", "jobs")
	for _, id := range records {
		assert.Len(v.t, places[id], 1, "places of job %q: %v", id, places[id])
	}
	for id, in := range places {
		assert.Contains(v.t, records, id, "id %q in %v has no record", id, in)
	}
}

// stallCheck waits until somebody checks for stalled jobs.
func (v *keys) stallCheck() {
	v.t.Helper()
	before := v.number("PTTL", "stallBlock")
	queuetest.Await(v.t, "a stall check", func() bool {
		last := before
		before = v.number("PTTL", "stallBlock")
		return before > max(last, 0)
	})
}

// settled reports whether every record is in exactly one place by now. After a failover, a
// connection may show the old master's view for some seconds more.
func (v *keys) settled() bool {
	v.t.Helper()
	places, records := v.places(), v.list("HKEYS", "jobs")
	if len(places) != len(records) {
		return false
	}
	for _, in := range places {
		if len(in) != 1 {
			return false
		}
	}
	return true
}

// allSucceeded waits until n jobs have succeeded and nothing else is left.
func (v *keys) allSucceeded(n int) {
	v.t.Helper()
	queuetest.Await(v.t, fmt.Sprintf("%d jobs to succeed", n), func() bool {
		return v.number("SCARD", "succeeded") == int64(n) && v.number("LLEN", "active") == 0
	})
	v.check()
}

// runCounts counts the runs of each job.
type runCounts struct {
	mu    sync.Mutex
	times map[string]int
}

func (r *runCounts) ran(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.times == nil {
		r.times = make(map[string]int)
	}
	r.times[id]++
	return r.times[id]
}

func (r *runCounts) of(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.times[id]
}

// once requires that each job ran at least once and, unless doubled, not more than once.
func (r *runCounts) once(t *testing.T, ids []string, doubled bool) {
	t.Helper()
	for _, id := range ids {
		n := r.of(id)
		require.Positive(t, n, "job %q did not run", id)
		if !doubled {
			require.Equal(t, 1, n, "runs of job %q", id)
		}
	}
}

// lineHasAll reports whether a line of text has all the parts.
func lineHasAll(text string, parts ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}
