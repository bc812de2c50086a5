package beequeue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
)

// patience bounds every wait of the tests for something that has to come. It
// is long, for the machine may be busy; nothing waits for it when all is well.
const patience = time.Minute

// A fixture is a queue of a test's own on some server.
type fixture struct {
	*beequeue.Queue
	t      *testing.T
	server *server
	client rueidis.Client

	mu     sync.Mutex
	errors []error       // what OnError got and no test has asked for
	heard  chan struct{} // holds a value when errors has grown
	untidy bool          // the test leaves a broken layout behind
	faulty bool          // the test has errors without end
	began  time.Time
}

var queueNumber atomic.Int64

// open makes a queue with a new name. When the test is over, the queue is
// closed, and then every job must be in exactly one place, no run may be left
// in owners, and no subscription or blocked connection may be left; errors that
// OnError got must have been expected (expectError).
func open(t *testing.T, s *server, config beequeue.Config) *fixture {
	t.Helper()
	name := fmt.Sprintf("q%d", queueNumber.Add(1))
	f := &fixture{t: t, server: s, client: s.dial(t, name), heard: make(chan struct{}, 1), began: time.Now()}
	var err error
	f.Queue, err = beequeue.New(f.client, name, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		defer f.client.Close()
		f.close(f.Queue)
		if !f.untidy {
			f.checkLayout()
		}
		f.checkConnections()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, err := range f.errors {
			if f.faulty {
				break
			}
			if lateBeats.Excuses(err, f.began) {
				continue
			}
			assert.NoError(t, err, "OnError was called")
		}
	})
	f.OnError(f.gotError)
	return f
}

// peer makes another value of the same queue, as another process has.
func (f *fixture) peer(config beequeue.Config) *beequeue.Queue {
	f.t.Helper()
	q, err := beequeue.New(f.client, f.Name(), config)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { f.close(q) })
	q.OnError(f.gotError)
	return q
}

func (f *fixture) close(q *beequeue.Queue) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	assert.NoError(f.t, q.Close(ctx), "Close")
}

func (f *fixture) gotError(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, err)
	select {
	case f.heard <- struct{}{}:
	default:
	}
}

// expectError waits until OnError has got an error for which match is true, and
// takes it off the list of errors that nobody expected.
func (f *fixture) expectError(match func(error) bool) {
	f.t.Helper()
	require.Error(f.t, f.catch(match))
}

// catch is expectError for tests that look at the error.
func (f *fixture) catch(match func(error) bool) error {
	f.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		i := slices.IndexFunc(f.errors, match)
		if i >= 0 {
			err := f.errors[i]
			f.errors = slices.Delete(f.errors, i, i+1)
			f.mu.Unlock()
			return err
		}
		got := slices.Clone(f.errors)
		f.mu.Unlock()
		select {
		case <-f.heard:
		case <-deadline.C:
			require.FailNow(f.t, "OnError did not get the error", "got: %v", got)
		}
	}
}

// is gives a match for expectError.
func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// as gives a match for expectError: an error of type E.
func as[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// cmd sends a command that has one of the queue's keys as its first argument.
func (f *fixture) cmd(command, suffix string, args ...string) rueidis.RedisResult {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f.client.Do(ctx, f.client.B().Arbitrary(command).Keys(f.KeyPrefix()+suffix).Args(args...).Build())
}

// must is cmd for commands that may not fail.
func (f *fixture) must(command, suffix string, args ...string) {
	f.t.Helper()
	require.NoError(f.t, f.cmd(command, suffix, args...).Error())
}

// list gives a reply of strings.
func (f *fixture) list(command, suffix string, args ...string) []string {
	f.t.Helper()
	values, err := f.cmd(command, suffix, args...).AsStrSlice()
	require.NoError(f.t, err)
	return values
}

// number gives a reply that is an integer.
func (f *fixture) number(command, suffix string, args ...string) int64 {
	f.t.Helper()
	n, err := f.cmd(command, suffix, args...).AsInt64()
	require.NoError(f.t, err)
	return n
}

// cmdText gives a reply that is text.
func (f *fixture) cmdText(command, suffix string, args ...string) string {
	f.t.Helper()
	text, err := f.cmd(command, suffix, args...).ToString()
	require.NoError(f.t, err)
	return text
}

// record gives what Redis holds of a job.
func (f *fixture) record(id string) string {
	f.t.Helper()
	return f.cmdText("HGET", "jobs", id)
}

func (f *fixture) waiting() []string { f.t.Helper(); return f.list("LRANGE", "waiting", "0", "-1") }
func (f *fixture) active() []string  { f.t.Helper(); return f.list("LRANGE", "active", "0", "-1") }

// plant stores a record without the library, as another process might, and
// puts its id in waiting.
func (f *fixture) plant(id, record string) {
	f.t.Helper()
	f.must("HSET", "jobs", id, record)
	f.must("LPUSH", "waiting", id)
}

// places tells where each id is.
func (f *fixture) places() map[string][]string {
	f.t.Helper()
	found := make(map[string][]string)
	for _, place := range []struct {
		key, command string
		args         []string
	}{
		{"waiting", "LRANGE", []string{"0", "-1"}},
		{"active", "LRANGE", []string{"0", "-1"}},
		{"succeeded", "SMEMBERS", nil},
		{"failed", "SMEMBERS", nil},
		{"delayed", "ZRANGE", []string{"0", "-1"}},
	} {
		for _, id := range f.list(place.command, place.key, place.args...) {
			found[id] = append(found[id], place.key)
		}
	}
	return found
}

// checkLayout says what is wrong with the queue's keys.
func (f *fixture) checkLayout() {
	f.t.Helper()
	places := f.places()
	records := f.list("HKEYS", "jobs")
	for _, id := range records {
		assert.Len(f.t, places[id], 1, "job %q must be in one place, it is in %v", id, places[id])
	}
	slices.Sort(records)
	for id, in := range places {
		_, found := slices.BinarySearch(records, id)
		assert.True(f.t, found, "id %q in %v has no record", id, in)
	}
	assert.Empty(f.t, f.list("HKEYS", "owners"), "owners of runs that are over")
	for _, id := range f.list("HKEYS", "reasons") {
		assert.Equal(f.t, []string{"failed"}, places[id], "job %q has a reason to be in failed", id)
	}
}

// checkConnections says whether the queue, which is closed, has left a
// subscription or a blocked command.
func (f *fixture) checkConnections() {
	f.t.Helper()
	began := time.Now()
	defer func() {
		assert.Less(f.t, time.Since(began), 20*time.Second, "it is for Close to end them, and not for the client's idle timeout")
	}()
	await(f.t, "subscriptions end", func() bool {
		return f.subscriptions("events")+f.subscriptions("earlierDelayed") == 0
	})
	if f.server.listsClients {
		await(f.t, "blocked commands end", func() bool {
			for client := range strings.Lines(f.clients()) {
				if !strings.Contains(client, " name="+f.Name()+" ") {
					continue
				}
				for word := range strings.FieldsSeq(client) {
					if flags, ok := strings.CutPrefix(word, "flags="); ok && strings.Contains(flags, "b") {
						return false
					}
				}
			}
			return true
		})
	}
}

// subscriptions counts who listens to one of the queue's channels, on all nodes.
func (f *fixture) subscriptions(channel string) int64 {
	f.t.Helper()
	nodes := f.server.nodes
	if nodes == nil {
		nodes = []rueidis.Client{f.client}
	}
	var sum int64
	for _, node := range nodes {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		counts, err := node.Do(ctx, node.B().PubsubNumsub().Channel(f.KeyPrefix()+channel).Build()).ToArray()
		cancel()
		require.NoError(f.t, err)
		n, err := counts[1].AsInt64()
		require.NoError(f.t, err)
		sum += n
	}
	return sum
}

// clients gives CLIENT LIST.
func (f *fixture) clients() string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := f.client.Do(ctx, f.client.B().ClientList().Build().SetSlot(f.KeyPrefix())).ToString()
	require.NoError(f.t, err)
	return list
}

// save saves a job with data and returns it.
func (f *fixture) save(data any, settings ...func(*beequeue.Job)) *beequeue.Job {
	f.t.Helper()
	job := f.CreateJob(data)
	for _, set := range settings {
		set(job)
	}
	require.NoError(f.t, job.Save(bounded(f.t)))
	return job
}

// lookup gets a job that must be there.
func (f *fixture) lookup(id string) *beequeue.Job {
	f.t.Helper()
	job, err := f.GetJob(bounded(f.t), id)
	require.NoError(f.t, err)
	return job
}

// requireState checks that the job is in one state, and in no other, by IsInSet.
func (f *fixture) requireState(id string, want beequeue.State) {
	f.t.Helper()
	require.Equal(f.t, []string{string(want)}, f.places()[id], "places of job %q", id)
}

// bounded gives a context that ends some time after anything should have
// happened, or with the test.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await polls until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			require.FailNow(t, "waited in vain", "for: %s", what)
		}
	}
}

// receive takes a value from a channel that must give one, or be closed.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case v := <-c:
		return v
	case <-deadline.C:
		require.FailNow(t, "waited in vain", "for: %s", what)
		panic("unreachable")
	}
}

// succeed is a handler that does nothing.
func succeed(context.Context, *beequeue.Job) (any, error) { return nil, nil }

// errBroken is what handlers fail with.
var errBroken = errors.New("broken")

// fail is a handler that fails.
func fail(context.Context, *beequeue.Job) (any, error) { return nil, errBroken }

// states are all there are.
var states = []beequeue.State{
	beequeue.StateWaiting, beequeue.StateActive, beequeue.StateDelayed, beequeue.StateSucceeded, beequeue.StateFailed,
}

// itoa names jobs in loops.
func itoa(i int) string { return strconv.Itoa(i) }
