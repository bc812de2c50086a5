package beequeue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// callbacks holds the user's callbacks, and the errors on their way to OnError.
type callbacks struct {
	mu sync.RWMutex

	ready     []func()
	errors    []func(error)
	succeeded []func(*Job, json.RawMessage)
	retrying  []func(*Job, error)
	failed    []func(*Job, error)
	fatal     []func(*Job, error)
	stalled   []func(string)
	raised    []func(int)

	jobSucceeded []func(string, json.RawMessage)
	jobRetrying  []func(string, error)
	jobFailed    []func(string, error)
	jobProgress  []func(string, json.RawMessage)

	pending   []error // errors for OnError, in order
	dropped   int     // number of errors that found pending full
	reporting bool    // a goroutine is calling OnError

	logged time.Time // when the log last got an error
	muted  int       // number of errors since then that were not logged
}

// addCallback adds a callback to one of the lists.
func addCallback[F any](c *callbacks, list *[]F, f F) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*list = append(*list, f)
}

// callbacksOf returns the callbacks in a list, to be called without the lock.
func callbacksOf[F any](c *callbacks, list *[]F) []F {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return *list
}

// OnReady calls f once, when Redis has answered for the first time and can hold the
// queue's keys: in Ready, or at the start of Process.
func (q *Queue) OnReady(f func()) { addCallback(&q.callbacks, &q.callbacks.ready, f) }

// OnError calls f with every error that no call returns: lost connections, malformed
// records and messages, jobs whose ownership was lost, panics of callbacks. A failed job
// is not an error. Errors are passed one after the other, beside everything else. At most
// 1,000 errors wait while f is slow; more are dropped and counted. Without OnError,
// errors go to Config.Logger.
func (q *Queue) OnError(f func(error)) { addCallback(&q.callbacks, &q.callbacks.errors, f) }

// OnSucceeded calls f when a job that this queue value processed has succeeded, after
// Redis has recorded it. The result is nil if the handler returned nil.
func (q *Queue) OnSucceeded(f func(job *Job, result json.RawMessage)) {
	addCallback(&q.callbacks, &q.callbacks.succeeded, f)
}

// OnRetrying calls f when a job that this queue value processed has failed and
// will be tried again.
func (q *Queue) OnRetrying(f func(job *Job, err error)) {
	addCallback(&q.callbacks, &q.callbacks.retrying, f)
}

// OnFailed calls f when a job that this queue value processed has failed, even if it
// will be tried again: Bee-Queue's `failed`.
func (q *Queue) OnFailed(f func(job *Job, err error)) {
	addCallback(&q.callbacks, &q.callbacks.failed, f)
}

// OnFailedForGood calls f when a job that this queue value processed has failed
// and will not be tried again: Bee-Queue's `failed:fatal`.
func (q *Queue) OnFailedForGood(f func(job *Job, err error)) {
	addCallback(&q.callbacks, &q.callbacks.fatal, f)
}

// OnStalled calls f with the id of each job that this queue value took back from a lost
// worker.
func (q *Queue) OnStalled(f func(id string)) { addCallback(&q.callbacks, &q.callbacks.stalled, f) }

// OnRaised calls f with the number of delayed jobs that this queue value moved to waiting
// when they came due: Bee-Queue's `raised jobs`.
func (q *Queue) OnRaised(f func(n int)) { addCallback(&q.callbacks, &q.callbacks.raised, f) }

// OnJobSucceeded calls f for every job of the queue that succeeds, whichever process ran
// it. Like the other OnJob callbacks it subscribes to the queue's events, until Close.
// Events are missed while the connection is broken.
func (q *Queue) OnJobSucceeded(f func(id string, result json.RawMessage)) {
	addCallback(&q.callbacks, &q.callbacks.jobSucceeded, f)
	q.subscriber.listen()
}

// OnJobRetrying calls f for every job of the queue that failed and will be tried again,
// whichever process ran it. The error is a *FailedError.
func (q *Queue) OnJobRetrying(f func(id string, err error)) {
	addCallback(&q.callbacks, &q.callbacks.jobRetrying, f)
	q.subscriber.listen()
}

// OnJobFailed calls f for every job of the queue that fails for good, whichever process
// ran it. The error is a *FailedError.
func (q *Queue) OnJobFailed(f func(id string, err error)) {
	addCallback(&q.callbacks, &q.callbacks.jobFailed, f)
	q.subscriber.listen()
}

// OnJobProgress calls f for every progress report of any job of the queue.
func (q *Queue) OnJobProgress(f func(id string, progress json.RawMessage)) {
	addCallback(&q.callbacks, &q.callbacks.jobProgress, f)
	q.subscriber.listen()
}

// guard runs a callback of the user's, and reports its panic as a *PanicError.
func (c *callbacks) guard(q *Queue, name string, f func()) {
	defer func() {
		if value := recover(); value != nil {
			err := &PanicError{Value: value, Stack: string(debug.Stack())}
			if name == "OnError" {
				c.log(q, err) // OnError would be called for its own panic, again and again
				return
			}
			q.report(err, "%s callback", name)
		}
	}()
	f()
}

func (c *callbacks) fireReady(q *Queue) {
	for _, f := range callbacksOf(c, &c.ready) {
		c.guard(q, "OnReady", f)
	}
}

// errorsMost is the number of errors that may wait for OnError.
const errorsMost = 1000

// fireError passes an error to OnError, or to the log if there is no callback. OnError
// runs in a goroutine of its own, which lives while errors are pending. So the caller,
// for example the heartbeat, does not wait for the user's code.
func (c *callbacks) fireError(q *Queue, err error) {
	if len(callbacksOf(c, &c.errors)) == 0 {
		c.log(q, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == errorsMost {
		c.dropped++
		return
	}
	c.pending = append(c.pending, err)
	if c.reporting {
		return
	}
	c.reporting = true
	if !q.spawn(func() { c.reportErrors(q) }) {
		go c.reportErrors(q) // after Close, which waits for no more goroutines
	}
}

// reportErrors calls OnError until no error is pending.
func (c *callbacks) reportErrors(q *Queue) {
	for {
		c.mu.Lock()
		list, pending, dropped := c.errors, c.pending, c.dropped
		c.pending, c.dropped = nil, 0
		c.reporting = len(pending) > 0
		c.mu.Unlock()
		if len(pending) == 0 {
			return
		}
		if dropped > 0 {
			pending = append(pending, q.wrap(fmt.Errorf("%d errors were dropped: OnError is too slow", dropped), "report errors"))
		}
		for _, err := range pending {
			for _, f := range list {
				c.guard(q, "OnError", func() { f(err) })
			}
		}
	}
}

// log writes an error to Config.Logger, at most one a second.
func (c *callbacks) log(q *Queue, err error) {
	c.mu.Lock()
	now := time.Now()
	if now.Sub(c.logged) < time.Second {
		c.muted++
		c.mu.Unlock()
		return
	}
	muted := c.muted
	c.logged, c.muted = now, 0
	c.mu.Unlock()
	q.config.Logger.Error("beequeue", slog.String("queue", q.name), slog.Any("error", err), slog.Int("not logged", muted))
}

func (c *callbacks) fireStalled(q *Queue, id string) {
	for _, f := range callbacksOf(c, &c.stalled) {
		c.guard(q, "OnStalled", func() { f(id) })
	}
}

func (c *callbacks) fireRaised(q *Queue, n int) {
	for _, f := range callbacksOf(c, &c.raised) {
		c.guard(q, "OnRaised", func() { f(n) })
	}
}

// fireOutcome runs the callbacks for a run whose outcome Redis has recorded.
func (c *callbacks) fireOutcome(q *Queue, job *Job, o outcome) {
	switch o.status {
	case StatusSucceeded:
		for _, f := range callbacksOf(c, &c.succeeded) {
			c.guard(q, "OnSucceeded", func() { f(job, o.result) })
		}
		return
	case StatusRetrying:
		c.fireFailure(q, "OnRetrying", &c.retrying, job, o.err)
		c.fireFailure(q, "OnFailed", &c.failed, job, o.err)
	case StatusFailed:
		c.fireFailure(q, "OnFailed", &c.failed, job, o.err)
		c.fireFailure(q, "OnFailedForGood", &c.fatal, job, o.err)
	case StatusCreated: // never the outcome of a run
	}
}

func (c *callbacks) fireFailure(q *Queue, name string, list *[]func(*Job, error), job *Job, err error) {
	for _, f := range callbacksOf(c, list) {
		c.guard(q, name, func() { f(job, err) })
	}
}

// fireEvent runs the OnJob callbacks for an event of any process.
func (c *callbacks) fireEvent(q *Queue, e event) {
	switch e.Name {
	case eventSucceeded:
		for _, f := range callbacksOf(c, &c.jobSucceeded) {
			c.guard(q, "OnJobSucceeded", func() { f(e.ID, e.Data) })
		}
	case eventRetrying:
		for _, f := range callbacksOf(c, &c.jobRetrying) {
			c.guard(q, "OnJobRetrying", func() { f(e.ID, e.failure()) })
		}
	case eventFailed:
		for _, f := range callbacksOf(c, &c.jobFailed) {
			c.guard(q, "OnJobFailed", func() { f(e.ID, e.failure()) })
		}
	case eventProgress:
		for _, f := range callbacksOf(c, &c.jobProgress) {
			c.guard(q, "OnJobProgress", func() { f(e.ID, e.Data) })
		}
	}
}

// event is what was heard or read about a job.
type event struct {
	ID   string
	Name string
	Data json.RawMessage

	end    error // the error that waiters get, if the job failed for good
	unsure bool  // the job's record does not say whether there is a result
}

// ended reports whether it is the last event of a job.
func (e event) ended() bool { return e.Name == eventSucceeded || e.Name == eventFailed }

// decodeEvent reads a message of the channel `events`.
func decodeEvent(message string) (event, error) {
	e, err := wire.DecodeEvent(message)
	return event{ID: e.ID, Name: e.Name, Data: e.Data}, err
}

// The names of events on the wire.
const (
	eventSucceeded = "succeeded"
	eventRetrying  = "retrying"
	eventFailed    = "failed"
	eventProgress  = "progress"
)

// failure returns the error of a failed or retrying event. Its data is the error's
// message, as Node publishes it. Data that is not a JSON string is taken as it is.
func (e event) failure() error {
	var message string
	if json.Unmarshal(e.Data, &message) != nil {
		message = string(e.Data)
	}
	return &FailedError{ID: e.ID, Message: message}
}

var errNoProgress = errors.New("progress is empty")

// ReportProgress publishes how far a job is to OnJobProgress and Job.Watch, and sets
// Job.Progress. The progress may be any value that encoding/json can marshal, except nil.
// As in Bee-Queue it is not stored until the run ends.
func (j *Job) ReportProgress(ctx context.Context, progress any) error {
	q := j.queue
	raw, err := json.Marshal(progress)
	if err == nil && string(raw) == "null" {
		err = errNoProgress
	}
	if err != nil {
		return q.wrap(err, "report progress of job %q", j.ID)
	}
	j.Progress = raw
	ctx, cancel := q.bound(ctx)
	defer cancel()
	if err := q.store.Publish(ctx, wire.EncodeEvent(j.ID, eventProgress, raw)); err != nil {
		return q.wrap(err, "report progress of job %q", j.ID)
	}
	return nil
}

// notice is one callback that is due: those for a job's outcome, or other.
type notice struct {
	job     *Job
	outcome *outcome
	other   func()
}

// notices runs a worker's callbacks in order, beside the loop.
type notices struct {
	line chan []notice // batches, in order
	done chan struct{} // closed when all have run
}

// start starts the goroutine that runs callbacks, until finish.
func (n *notices) start(q *Queue) {
	n.line = make(chan []notice, 64)
	n.done = make(chan struct{})
	go func() {
		defer close(n.done)
		for batch := range n.line {
			for i := range batch {
				if batch[i].other != nil {
					batch[i].other()
				} else {
					q.callbacks.fireOutcome(q, batch[i].job, *batch[i].outcome)
				}
			}
		}
	}()
}

// add puts a callback in the line. It waits while the line is full.
func (n *notices) add(f func()) { n.line <- []notice{{other: f}} }

// finish waits until all callbacks have run. Nothing may be added any more.
func (n *notices) finish() {
	close(n.line)
	<-n.done
}
