package beequeue_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// A running is a Process under way.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// process starts Process. It is stopped when the test is over; it must not
// return an error unless the test has called stop, which gives the error.
func process(t *testing.T, q *beequeue.Queue, concurrency int, handler beequeue.Handler) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = q.Process(ctx, concurrency, handler)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// stop ends Process and gives what it returned.
func (r *running) stop() error {
	r.t.Helper()
	r.cancel()
	return r.wait()
}

// wait waits until Process has returned.
func (r *running) wait() error {
	r.t.Helper()
	receive(r.t, r.done, "the end of Process")
	return r.err
}

// drain runs all jobs that wait.
func drain(t *testing.T, q *beequeue.Queue, concurrency int, handler beequeue.Handler) {
	t.Helper()
	require.NoError(t, q.Drain(bounded(t), concurrency, handler))
}
