package beequeue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// run is one claimed job.
type run struct {
	id      string // as claimed; the handler may change its job
	record  string // as claimed
	claim   string
	job     *Job            // read from it, in the handler's goroutine
	options Options         // the job's, as claimed
	ctx     context.Context //nolint:containedctx // the handler's, ended by others than its caller
	cancel  context.CancelCauseFunc
	decided atomic.Bool // somebody has settled what becomes of the job
	cut     bool        // and that is: handed back; under the worker's lock
	noted   bool        // the loop has the outcome; of the loop alone
}

// decide reports whether the caller is the first to settle what becomes of the
// job: the handler by returning, a timeout whose grace is over, the loss of the
// job, or the end of the worker.
func (r *run) decide() bool { return r.decided.CompareAndSwap(false, true) }

// ending is news of a run: the call for its outcome, that its slot is free, or
// both.
type ending struct {
	run     *run // nil for a job that was not run
	free    bool
	outcome *outcome
	job     *Job // as it is to be recorded
	call    turnOutcome
}

// mostIdle is how many goroutines a worker keeps for handlers to come, though no more
// than its concurrency. A goroutine that has run one has the stack for the next.
const mostIdle = 512

// start runs a job in a goroutine that has run others, or in a new one.
func (w *worker) start(r *run) {
	select {
	case w.next <- r:
	default:
		w.handlers.Go(func() { w.serve(r) })
	}
}

// serve runs a job, and those that come after it.
func (w *worker) serve(r *run) {
	for ok := true; ok; {
		w.execute(r)
		if w.idlers.Add(1) > w.keep {
			w.idlers.Add(-1)
			return
		}
		r, ok = <-w.next
		w.idlers.Add(-1)
	}
}

// execute reads the record, runs the handler, and sends the loop what came of it.
func (w *worker) execute(r *run) {
	job, err := decodeJob(w.q, r.id, r.record)
	if err != nil {
		w.q.report(err, "run job %q", r.id)
		e := ending{run: r, free: true}
		if r.decide() {
			e.call = w.q.unreadable(r.id, r.claim, err)
		}
		w.ends <- e
		r.cancel(nil)
		return
	}
	r.job, r.options = job, job.Options
	w.handle(r)
}

// handle runs the handler and sends the loop what came of it.
func (w *worker) handle(r *run) {
	ctx := r.ctx
	if timeout := r.job.Options.Timeout; timeout > 0 {
		cause := fmt.Errorf("%w after %v", ErrTimeout, timeout)
		timed, stop := context.WithTimeoutCause(ctx, timeout, cause)
		defer stop()
		ctx = timed
		patience := timeout + min(w.q.config.TimeoutGrace, math.MaxInt64-timeout) // which may be ages
		stuck := time.AfterFunc(patience, func() { w.giveUp(r, cause) })
		defer stuck.Stop()
	}
	var result json.RawMessage
	var err error
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit, which cannot be stopped
			err = &PanicError{Value: recover(), Stack: string(debug.Stack())}
		}
		e := ending{run: r, free: true}
		if r.decide() {
			w.q.settle(&e, r.job, result, timeoutError(ctx, err))
		}
		w.ends <- e
		r.cancel(nil)
	}()
	value, err := w.handler(ctx, r.job)
	if err == nil {
		result, err = marshalResult(value)
	} else {
		_ = err.Error() // which panics here, if it does: of a nil pointer, say
	}
	returned = true
}

// marshalResult gives a handler's result as JSON; nil for nil.
func marshalResult(value any) (json.RawMessage, error) {
	if value == nil {
		return nil, nil
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("marshal result: %w", err)
	}
	if string(raw) == "null" {
		return nil, nil
	}
	return raw, nil
}

// timeoutError says of a run that failed after its time was over that this is
// why. A handler that finished its work all the same has succeeded.
func timeoutError(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || !errors.Is(cause, ErrTimeout) || errors.Is(err, ErrTimeout) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return cause
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// giveUp settles a run whose handler goes on although its time and its grace are
// over. The slot stays taken. The handler still has the job, so the outcome is
// worked out on a second copy.
func (w *worker) giveUp(r *run, cause error) {
	job, err := decodeJob(w.q, r.id, r.record)
	if err != nil || !r.decide() {
		return
	}
	e := ending{run: r}
	w.q.settle(&e, job, nil, cause)
	w.ends <- e
	w.q.report(fmt.Errorf("%w: %w", ErrStuck, cause), "job %q", r.id)
}

// settle decides what becomes of a job, and prepares the call for it.
func (q *Queue) settle(e *ending, job *Job, result json.RawMessage, err error) {
	config := &q.config
	plain := err == nil && !config.RemoveOnSuccess && len(e.run.record) < largeRecord && e.run.unchanged(job)
	if !plain {
		if broken := job.repair(e.run.record); broken != nil {
			q.report(broken, "job %q", e.run.id)
		}
	}
	o := job.decide(result, err, config.Backoffs)
	e.outcome, e.job = &o, job
	if plain {
		e.call = turnOutcome{id: e.run.id, claim: e.run.claim, what: turnPlain, field: job.statusAt - len(statusName) + 1, text: string(result)}
		return
	}
	e.call = e.whole(q)
}

// statusName is how a record names its status, if it was written by Bee-Queue or
// by us.
const statusName = `"status":`

// unchanged tells whether the record needs no more than a new status and a result:
// the handler left the job as it was, and the job was not in succeeded or failed
// before, where a Node process may have left it.
func (r *run) unchanged(job *Job) bool {
	o, p := &job.Options, &r.options
	status := r.record[job.statusAt:job.statusEnd]
	return job == r.job && (status == `"created"` || status == `"retrying"`) && job.Result == nil &&
		job.statusAt >= len(statusName) && r.record[job.statusAt-len(statusName):job.statusAt] == statusName &&
		job.dataEnd > 0 && r.record[job.dataAt:job.dataEnd] == string(job.Data) &&
		r.record[job.progressAt:job.progressEnd] == string(job.Progress) &&
		o.Created.Equal(p.Created) && o.Retries == p.Retries && o.Timeout == p.Timeout &&
		o.DelayUntil.Equal(p.DelayUntil) && o.Backoff == p.Backoff &&
		len(o.Stacktraces) == 0 && len(p.Stacktraces) == 0 && unescaped(r.id)
}

// whole is the call for an outcome with the whole of its record.
func (e *ending) whole(q *Queue) turnOutcome {
	config, o := &q.config, e.outcome
	c := turnOutcome{id: e.run.id, claim: e.run.claim, delay: o.delay}
	switch {
	case o.status == StatusSucceeded && config.RemoveOnSuccess, o.status == StatusFailed && config.RemoveOnFailure:
		c.what = turnRemoved
	case o.status == StatusSucceeded:
		c.what = turnSucceeded
	case o.status == StatusFailed:
		c.what = turnFailed
	default:
		c.what = turnRetrying
	}
	if c.what != turnRemoved {
		c.text = e.job.encode()
	}
	if !config.NoEvents {
		data := o.result
		if o.err != nil {
			data = appendString(nil, o.err.Error())
		}
		c.event = encodeEvent(e.run.id, string(o.status), data)
	}
	return c
}

// unreadable is the outcome of a job whose record cannot be read: it fails, and
// the record stays as it is.
func (q *Queue) unreadable(id, claim string, reason error) turnOutcome {
	o := turnOutcome{id: id, claim: claim, what: turnUnreadable, text: reason.Error()}
	var malformed *RecordError
	if errors.As(reason, &malformed) {
		o.text = malformed.Reason
	}
	if !q.config.NoEvents {
		o.event = encodeEvent(id, eventFailed, appendString(nil, reason.Error()))
	}
	return o
}
