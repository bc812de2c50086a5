package queuetest

import (
	"context"
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
)

// A Fixture is a queue of a test's own on some server.
type Fixture struct {
	*beequeue.Queue
	Client rueidis.Client
	Untidy bool // the test leaves a broken layout behind
	Faulty bool // the test expects errors without end

	t      *testing.T
	server *Server
	began  time.Time

	mu     sync.Mutex
	errors []error       // what OnError got and no test has asked for
	heard  chan struct{} // holds a value when errors has grown
}

var queueNumber atomic.Int64

// Open makes a queue with a new name. When the test is over, the queue is closed. Then
// every job must be in exactly one place, owners must be empty, and neither a
// subscription nor a blocked connection may be left. The test must have asked for the
// errors that OnError got, see [Fixture.ExpectError].
func Open(t *testing.T, s *Server, config beequeue.Config) *Fixture {
	t.Helper()
	name := fmt.Sprintf("q%d", queueNumber.Add(1))
	f := newFixture(t, s, s.Dial(t, name), name, config)
	t.Cleanup(func() {
		defer f.Client.Close()
		f.CloseQueue(f.Queue)
		if !f.Untidy {
			f.checkLayout()
		}
		f.checkConnections()
		if f.Faulty {
			return
		}
		for _, err := range f.TakeErrors() {
			if !Excuses(err, f.began) {
				assert.NoError(t, err, "OnError was called")
			}
		}
	})
	return f
}

// Attach makes a fixture of a queue that others use as well. Closing the client and the
// queue is up to the test, and nothing is checked when the test is over. The nodes are
// clients for each node of a cluster; Subscriptions asks them, or client if there are none.
func Attach(t *testing.T, client rueidis.Client, name string, nodes ...rueidis.Client) *Fixture {
	t.Helper()
	return newFixture(t, &Server{Nodes: nodes}, client, name, beequeue.Config{})
}

func newFixture(t *testing.T, s *Server, client rueidis.Client, name string, config beequeue.Config) *Fixture {
	t.Helper()
	f := &Fixture{t: t, server: s, Client: client, heard: make(chan struct{}, 1), began: time.Now()}
	var err error
	f.Queue, err = beequeue.New(client, name, config)
	require.NoError(t, err)
	f.OnError(f.GotError)
	return f
}

// Peer makes another value of the same queue, as another process has.
func (f *Fixture) Peer(config beequeue.Config) *beequeue.Queue {
	f.t.Helper()
	q, err := beequeue.New(f.Client, f.Name(), config)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { f.CloseQueue(q) })
	q.OnError(f.GotError)
	return q
}

// CloseQueue closes a queue, which must succeed.
func (f *Fixture) CloseQueue(q *beequeue.Queue) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	assert.NoError(f.t, q.Close(ctx), "Close")
}

// GotError notes an error; it suits OnError.
func (f *Fixture) GotError(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, err)
	select {
	case f.heard <- struct{}{}:
	default:
	}
}

// ExpectError waits until OnError has got an error that match accepts, and takes it off
// the errors that nobody expected.
func (f *Fixture) ExpectError(match func(error) bool) {
	f.t.Helper()
	require.Error(f.t, f.Catch(match))
}

// Catch is ExpectError for tests that look at the error.
func (f *Fixture) Catch(match func(error) bool) error {
	f.t.Helper()
	deadline := time.NewTimer(Patience)
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

// HasError reports whether OnError has got an error that match accepts and that no test
// has taken yet.
func (f *Fixture) HasError(match func(error) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.errors, match)
}

// TakeErrors gives the errors that OnError got and no test has taken yet.
func (f *Fixture) TakeErrors() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.errors
	f.errors = nil
	return got
}

// Save saves a job with data and returns it.
func (f *Fixture) Save(data any, settings ...func(*beequeue.Job)) *beequeue.Job {
	f.t.Helper()
	job := f.CreateJob(data)
	for _, set := range settings {
		set(job)
	}
	require.NoError(f.t, job.Save(Bounded(f.t)))
	return job
}

// Lookup gets a job that must be there.
func (f *Fixture) Lookup(id string) *beequeue.Job {
	f.t.Helper()
	job, err := f.GetJob(Bounded(f.t), id)
	require.NoError(f.t, err)
	return job
}

// StallCheck looks for stalled jobs although it was done lately, and gives the sorted ids.
func (f *Fixture) StallCheck(q *beequeue.Queue) []string {
	f.t.Helper()
	f.Must("DEL", "stallBlock")
	ids, err := q.CheckStalled(Bounded(f.t))
	require.NoError(f.t, err)
	slices.Sort(ids)
	return ids
}

// checkConnections fails the test if the closed queue has left a subscription or a blocked
// command.
func (f *Fixture) checkConnections() {
	f.t.Helper()
	began := time.Now()
	defer func() {
		assert.Less(f.t, time.Since(began), 20*time.Second, "Close must end them, instead of the client's idle timeout")
	}()
	Await(f.t, "subscriptions end", func() bool {
		return f.Subscriptions("events")+f.Subscriptions("earlierDelayed") == 0
	})
	if f.server.listsClients {
		Await(f.t, "blocked commands end", func() bool { return !f.blocks() })
	}
}

// blocks reports whether a connection with the queue's name has a blocked command.
func (f *Fixture) blocks() bool {
	f.t.Helper()
	for client := range strings.Lines(f.Clients()) {
		if !strings.Contains(client, " name="+f.Name()+" ") {
			continue
		}
		for word := range strings.FieldsSeq(client) {
			if flags, ok := strings.CutPrefix(word, "flags="); ok && strings.Contains(flags, "b") {
				return true
			}
		}
	}
	return false
}
