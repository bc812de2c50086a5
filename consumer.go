package beequeue

import (
	"context"
	"errors"
	"fmt"
)

// A Handler does a job's work. What it returns is marshalled to JSON and kept as
// the job's result. An error fails the run, and so does a panic.
//
// The context ends when the job's Timeout has passed (context.Cause: ErrTimeout),
// when the job was taken from this worker or removed (ErrOwnershipLost), and when
// the worker stops and its grace period is over (ErrClosed). Return soon then. The
// context has the values, but not the end, of the context given to Process.
//
// A handler may call job.Backoff before it returns an error, if it knows better
// when to try again: from a Retry-After header, for example.
//
// A job may run more than once if its worker dies or stalls: make handlers
// idempotent.
type Handler func(ctx context.Context, job *Job) (any, error)

// Process takes jobs from the queue and runs up to concurrency handlers at once,
// at most 100,000. It also takes back the jobs of lost workers, and moves delayed
// jobs to waiting as they come due.
//
// Process blocks. It continues through restarts and failovers of Redis, and reports
// errors to OnError. When ctx ends, or at Close, it takes no more jobs, lets the
// handlers finish for at most Config.ShutdownTimeout, and returns nil. Jobs that
// are unfinished by then are handed back to waiting, and the error wraps
// ErrUnfinished. The error wraps ErrStuck if no job was handed back, but a handler whose
// job has timed out or was lost does not return within 2 s more.
//
// ErrBusy (another Process or Drain of q is running), ErrClosed,
// ErrUnsupportedServer and ErrKeyLayout come back at once.
func (q *Queue) Process(ctx context.Context, concurrency int, handler Handler) error {
	return q.work(ctx, concurrency, handler, false)
}

// Drain works like Process, but returns as soon as no job is waiting and none of
// its own is running. It runs delayed jobs that are due, and leaves the others. It
// suits batch programs and tests. It makes no stall checks: where no Process runs
// beside it, CheckStalled takes back the jobs of programs that died.
func (q *Queue) Drain(ctx context.Context, concurrency int, handler Handler) error {
	return q.work(ctx, concurrency, handler, true)
}

// maxConcurrency is the most handlers that a worker may run at once.
const maxConcurrency = 100_000

// work runs a worker, and returns when the worker has ended.
func (q *Queue) work(ctx context.Context, concurrency int, handler Handler, drain bool) error {
	switch {
	case concurrency < 1 || concurrency > maxConcurrency:
		return q.wrap(fmt.Errorf("concurrency %d is not between 1 and %d", concurrency, maxConcurrency), "process")
	case handler == nil:
		return q.wrap(errors.New("handler is nil"), "process")
	}
	w := newWorker(ctx, q, concurrency, handler, drain)
	if err := q.enlist(w); err != nil {
		return q.wrap(err, "process")
	}
	w.err = w.run(ctx)
	q.mu.Lock()
	q.worker = nil
	q.mu.Unlock()
	close(w.ended)
	if w.err != nil {
		return q.wrap(w.err, "process")
	}
	return nil
}

// enlist makes w the queue's worker. The error is ErrClosed, or ErrBusy if the queue
// has a worker.
func (q *Queue) enlist(w *worker) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.isClosed():
		return ErrClosed
	case q.worker != nil:
		return ErrBusy
	}
	q.worker = w
	return nil
}
