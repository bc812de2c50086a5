package queuetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// Running is a Process under way.
type Running struct {
	Cancel context.CancelFunc // ends the context of Process
	Done   chan struct{}      // closed when Process has returned

	t   *testing.T
	err error
}

// Process starts Queue.Process, and stops it when the test is over.
func Process(t *testing.T, q *beequeue.Queue, concurrency int, handler beequeue.Handler) *Running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{t: t, Cancel: cancel, Done: make(chan struct{})}
	go func() {
		defer close(r.Done)
		r.err = q.Process(ctx, concurrency, handler)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.Done
	})
	return r
}

// Stop ends Process and gives what it returned.
func (r *Running) Stop() error {
	r.t.Helper()
	r.Cancel()
	return r.Wait()
}

// Wait waits until Process has returned, and gives what it returned.
func (r *Running) Wait() error {
	r.t.Helper()
	Receive(r.t, r.Done, "the end of Process")
	return r.err
}

// Drain runs all jobs that wait.
func Drain(t *testing.T, q *beequeue.Queue, concurrency int, handler beequeue.Handler) {
	t.Helper()
	require.NoError(t, q.Drain(Bounded(t), concurrency, handler))
}
