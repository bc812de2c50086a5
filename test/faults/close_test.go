package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"runtime"
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

// libraryFrame matches a function of the library in a stack.
var libraryFrame = regexp.MustCompile(`gobeequeue/beequeue(/internal/(store|wire))?\.`)

// libraryGoroutines gives the stacks of the goroutines that run the library's code.
func libraryGoroutines() []string {
	buffer := make([]byte, 4<<20)
	var found []string
	for stack := range strings.SplitSeq(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if libraryFrame.MatchString(stack) {
			found = append(found, stack)
		}
	}
	return found
}

// connectionsOf counts the connections that have a name.
func connectionsOf(t *testing.T, client rueidis.Client, name string) int {
	t.Helper()
	list, err := client.Do(queuetest.Bounded(t), client.B().ClientList().Build()).ToString()
	require.NoError(t, err)
	return strings.Count(list, " name="+name+" ")
}

// Close leaves no goroutine, no subscription and no connection of the queue's, and the
// user's client stays open. That holds for an idle worker, whose connection blocks, and
// for a busy worker.
//
// It does not run beside other tests, because they have goroutines, too.
func TestFaultCloseLeavesNothing(t *testing.T) {
	s := startRedis(t)
	direct := queuetest.Dial(t, s.URL())
	for _, busy := range []bool{false, true} {
		queuetest.Within(t, "what a closed queue leaves", 2*time.Second, func() time.Duration {
			return leaveAfterClose(t, s, direct, busy)
		})
	}
}

// leaveAfterClose closes a queue, and gives how long its goroutines and connections
// outlived that.
func leaveAfterClose(t *testing.T, s *redistest.Server, direct rueidis.Client, busy bool) time.Duration {
	t.Helper()
	name := newName()
	client := queuetest.Dial(t, s.URL(), func(o *rueidis.ClientOption) { o.ClientName = name })
	require.NoError(t, client.Do(queuetest.Bounded(t), client.B().Ping().Build()).Error())
	connections, goroutines := connectionsOf(t, direct, name), len(libraryGoroutines())
	q := open(t, client, name, beequeue.Config{})
	q.OnJobProgress(func(string, json.RawMessage) {})
	running, finish := make(chan string, 10), make(chan struct{})
	processed := make(chan error, 1)
	go func() {
		processed <- q.Process(context.Background(), 1, func(context.Context, *beequeue.Job) (any, error) {
			running <- ""
			<-finish
			return nil, nil
		})
	}()
	blocks := func() bool {
		list, err := direct.Do(queuetest.Bounded(t), direct.B().ClientList().Build()).ToString()
		return err == nil && lineHasAll(list, "name="+name, "cmd=blmove", "flags=b")
	}
	queuetest.Await(t, "the worker to wait", blocks)
	queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, direct, q.KeyPrefix()) == 2 })
	if busy {
		q.save(nil)
		queuetest.Receive(t, running, "the job")
		queuetest.Await(t, "the wake-up", func() bool { return !blocks() })
	}
	closed := make(chan error, 1)
	go func() { closed <- q.Close(queuetest.Bounded(t)) }()
	close(finish)
	require.NoError(t, queuetest.Receive(t, closed, "Close"))
	require.NoError(t, queuetest.Receive(t, processed, "Process"))
	began := time.Now()
	// One that has done its work may still be at its last instruction.
	queuetest.Await(t, "goroutines to be gone", func() bool { return len(libraryGoroutines()) <= goroutines })
	queuetest.Await(t, "connections to be gone", func() bool { return connectionsOf(t, direct, name) <= connections })
	took := time.Since(began)
	require.Equal(t, connections, connectionsOf(t, direct, name), "the client's own")
	require.NoError(t, client.Do(queuetest.Bounded(t), client.B().Ping().Build()).Error(), "the user's client")
	return took
}

// lateClient holds up a worker that has waited for jobs once and is to wait again.
type lateClient struct {
	rueidis.Client
	waited atomic.Bool
	again  chan struct{} // closed when it is held up
	goOn   chan struct{}
	once   sync.Once
}

func (l *lateClient) DoMulti(ctx context.Context, commands ...rueidis.Completed) []rueidis.RedisResult {
	waits := commands[0].Commands()[0] == "BLMOVE"
	results := l.Client.DoMulti(ctx, commands...)
	if waits {
		l.waited.Store(true)
	}
	return results
}

// Mode is what the worker asks first.
func (l *lateClient) Mode() rueidis.ClientMode {
	if l.waited.Load() {
		l.once.Do(func() {
			close(l.again)
			<-l.goOn
		})
	}
	return l.Client.Mode()
}

// A connection that waited for jobs stays in the client's pool. It is closed, too, if the
// worker was stopped when it was about to wait again.
func TestFaultCloseBeforeWaiting(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	name := newName()
	direct := queuetest.Dial(t, s.URL())
	client := &lateClient{again: make(chan struct{}), goOn: make(chan struct{})}
	client.Client = queuetest.Dial(t, s.URL(), func(o *rueidis.ClientOption) { o.ClientName = name })
	q := open(t, client, name, beequeue.Config{})
	require.NoError(t, q.Ready(queuetest.Bounded(t)))
	before := connectionsOf(t, direct, name)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- q.Process(ctx, 1, func(context.Context, *beequeue.Job) (any, error) { return nil, nil })
	}()
	queuetest.Receive(t, client.again, "the end of the first wait")
	require.Greater(t, connectionsOf(t, direct, name), before, "there is one to close")
	stop()
	close(client.goOn)
	require.NoError(t, queuetest.Receive(t, ended, "Process"))
	require.NoError(t, q.Close(queuetest.Bounded(t)))
	began := time.Now()
	queuetest.Await(t, "the connection to be gone", func() bool { return connectionsOf(t, direct, name) == before })
	require.Less(t, time.Since(began), 20*time.Second, "it is for Close to end it, not for the idle timeout")
}

// Handlers may finish until the deadline. Then unfinished jobs are in waiting at once, and
// what a handler returns after that is not recorded.
//
// Bee-Queue: close with a timeout leaves the jobs in active until a stall check, and
// rejects.
func TestFaultCloseHandsBack(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{StallInterval: time.Minute})
	view := &keys{t, client, q.KeyPrefix()}
	quick, slow, next := q.save("quick"), q.save("slow"), ""
	started, causes := make(chan string, 10), make(chan error, 10)
	closing := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- q.Process(context.Background(), 2, func(ctx context.Context, job *beequeue.Job) (any, error) {
			started <- job.ID
			if job.ID == quick.ID {
				<-closing
				return "done", nil
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return "too late", nil
		})
	}()
	queuetest.Receive(t, started, "the first job")
	queuetest.Receive(t, started, "the second job")
	next = q.save("next").ID

	// Long enough for the quick one to be recorded on a machine that is busy.
	const grace = 3 * time.Second
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- q.Close(ctx) }()
	queuetest.Await(t, "Close to begin", func() bool { return !q.IsRunning() })
	close(closing)
	err := queuetest.Receive(t, closed, "Close")
	require.GreaterOrEqual(t, time.Since(began), grace)
	require.ErrorIs(t, err, beequeue.ErrUnfinished)
	require.NotErrorIs(t, err, beequeue.ErrStuck, "not until handlers that are cancelled run out of time")
	require.ErrorContains(t, err, `"`+slow.ID+`"`)
	require.NotContains(t, err.Error(), `"`+quick.ID+`"`)
	require.ErrorIs(t, queuetest.Receive(t, causes, "the handler to be cancelled"), beequeue.ErrClosed)
	require.ErrorIs(t, queuetest.Receive(t, ended, "Process"), beequeue.ErrUnfinished)

	assert.Equal(t, []string{next, slow.ID}, view.list("LRANGE", "waiting", "0", "-1"), "slow is at the front")
	assert.Equal(t, []string{"succeeded"}, view.places()[quick.ID])
	assert.NotContains(t, view.record(slow.ID), "too late")
	assert.Zero(t, view.number("HLEN", "owners"))
	assert.Zero(t, view.number("ZCARD", "workers"))
	assert.Empty(t, started)
	view.check()
	require.ErrorIs(t, q.CreateJob(nil).Save(queuetest.Bounded(t)), beequeue.ErrClosed)
	require.ErrorIs(t, q.Process(queuetest.Bounded(t), 1, func(context.Context, *beequeue.Job) (any, error) { return nil, nil }), beequeue.ErrClosed)
}

// A job that was claimed but not started when Close began goes back at once.
func TestFaultCloseReturnsClaimed(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	gate := redistest.StartGate(t, s.Addr)
	direct := queuetest.Dial(t, s.URL())
	name := newName()
	q := open(t, direct, name, beequeue.Config{})
	w := open(t, queuetest.Dial(t, gate.URL()), name, beequeue.Config{StallInterval: time.Minute})
	view := &keys{t, direct, q.KeyPrefix()}
	started, finish := make(chan string, 10), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- w.Process(context.Background(), 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			started <- job.ID
			<-finish
			return nil, nil
		})
	}()
	first := q.save(nil)
	require.Equal(t, first.ID, queuetest.Receive(t, started, "the first job"))
	second := q.save(nil)
	gate.Hold()
	close(finish) // the call that records it claims the second
	queuetest.Await(t, "the claim", func() bool { return view.places()[second.ID][0] == "active" })
	closed := make(chan error, 1)
	go func() { closed <- w.Close(queuetest.Bounded(t)) }()
	queuetest.Await(t, "Close to begin", func() bool { return !w.IsRunning() })
	stays(t, 50*time.Millisecond, "the job is claimed", func() bool { return view.number("LLEN", "active") == 1 })
	gate.Release()
	require.NoError(t, queuetest.Receive(t, closed, "Close"))
	require.NoError(t, queuetest.Receive(t, ended, "Process"))
	assert.Empty(t, started, "the second job was started")
	assert.Equal(t, []string{"waiting"}, view.places()[second.ID])
	assert.Zero(t, view.number("HLEN", "owners"))
	view.check()
}

// Close comes to an end while Redis does not answer, or is gone.
func TestFaultCloseWithoutRedis(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(map[bool]string{false: "frozen", true: "gone"}[gone], func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			q := open(t, queuetest.Dial(t, s.URL()), newName(), beequeue.Config{})
			started := make(chan string, 10)
			ended := make(chan error, 1)
			go func() {
				ended <- q.Process(context.Background(), 2, func(ctx context.Context, job *beequeue.Job) (any, error) {
					started <- job.ID
					<-ctx.Done()
					return nil, ctx.Err()
				})
			}()
			q.save(nil)
			queuetest.Receive(t, started, "the job")
			if gone {
				s.Kill()
			} else {
				s.Pause(t)
				defer s.Resume(t)
			}
			saved := make(chan error, 1)
			go func() { saved <- q.CreateJob(nil).Save(queuetest.Bounded(t)) }()
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := q.Close(ctx)
			took := time.Since(began)
			t.Logf("Close took %v: %v", took.Round(time.Millisecond), err)
			require.ErrorIs(t, err, beequeue.ErrUnfinished)
			assert.Less(t, took, 8*time.Second)
			require.Error(t, queuetest.Receive(t, ended, "Process"))
			err = queuetest.Receive(t, saved, "Save")
			require.True(t, errors.Is(err, beequeue.ErrUncertain) || errors.Is(err, beequeue.ErrClosed), "%v", err)
		})
	}
}
