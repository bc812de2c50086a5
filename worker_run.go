package beequeue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// A run is one claimed job, from its claim to its recorded outcome.
type run struct {
	id       string // as claimed; the handler may change its job
	record   string // as claimed
	claim    string
	job      *Job            // read from the record, in the handler's goroutine
	options  Options         // the job's, as claimed
	ctx      context.Context //nolint:containedctx // the handler's, ended by others than its caller
	cancel   context.CancelCauseFunc
	settled  atomic.Bool // what becomes of the job is settled, see settleOnce
	handBack bool        // the job goes back to waiting; under the worker's lock
	noted    bool        // the loop has the outcome; the loop's alone
}

// settleOnce reports whether the caller is the first to settle what becomes of the
// job. Four compete: the handler by returning, a timeout whose grace period is over, the
// loss of the job, and the end of the worker's grace period.
func (r *run) settleOnce() bool { return r.settled.CompareAndSwap(false, true) }

// A runEnd is news of a run for the loop: that the run has an outcome, that its slot is
// free, or both.
type runEnd struct {
	run     *run // nil for a job that was not run
	free    bool // the handler has returned, which frees its slot
	outcome *outcome
	job     *Job          // as it is to be recorded
	call    store.Outcome // records the outcome
}

// putAside is how long a job is delayed that this worker cannot run yet, because an
// earlier run of it has not returned. Then another worker may take the job.
const putAside = time.Second

// startRun starts the run of a claimed job. A job that cannot or must not run becomes an
// outcome of the next turn.
func (w *worker) startRun(c store.Claimed, claim string) {
	back := store.Outcome{ID: c.ID, Claim: claim, Kind: store.EndReturned}
	if c.NoRecord { // the job was removed meanwhile, or Redis does not answer any more
		w.giveBack(back)
		return
	}
	if w.unreturned[c.ID] != nil {
		back.Delay = putAside
		w.giveBack(back)
		return
	}
	r := &run{id: c.ID, record: c.Record, claim: claim}
	r.ctx, r.cancel = context.WithCancelCause(w.baseCtx)

	// Under the lock, so that endGrace either finds the run or comes before it: claimCtx
	// has ended when endGrace runs.
	w.mu.Lock()
	if w.claimCtx.Err() != nil {
		w.mu.Unlock()
		r.cancel(ErrClosed)
		w.giveBack(back)
		return
	}
	w.runs[c.ID] = r
	w.mu.Unlock()
	w.unreturned[c.ID] = r
	w.plan.running++
	w.start(r)
}

// giveBack returns a claimed job without a run.
func (w *worker) giveBack(back store.Outcome) {
	w.mu.Lock()
	w.returning[back.ID] = back.Claim
	w.mu.Unlock()
	w.addOutcomes(runEnd{call: back})
}

// mostIdle is the most goroutines that a worker keeps for handlers to come, and it never
// keeps more than its concurrency. A goroutine that has run a handler has a stack of the
// right size for the next.
const mostIdle = 512

// start runs a job in a goroutine that has run others, or in a new one.
func (w *worker) start(r *run) {
	select {
	case w.nextRun <- r:
	default:
		w.handlers.Go(func() { w.serve(r) })
	}
}

// serve runs a job, and the jobs that come after it.
func (w *worker) serve(r *run) {
	for ok := true; ok; {
		w.execute(r)
		if w.idle.Add(1) > w.idleAtMost {
			w.idle.Add(-1)
			return
		}
		r, ok = <-w.nextRun
		w.idle.Add(-1)
	}
}

// execute reads the record, runs the handler, and sends the loop the end of the run.
func (w *worker) execute(r *run) {
	job, err := decodeJob(w.q, r.id, r.record)
	if err != nil {
		w.q.report(err, "run job %q", r.id)
		e := runEnd{run: r, free: true}
		if r.settleOnce() {
			e.call = w.q.unreadable(r.id, r.claim, err)
		}
		w.runEnds <- e
		r.cancel(nil)
		return
	}
	r.job, r.options = job, job.Options
	w.handle(r)
}

// handle runs the handler, and sends the loop the end of the run.
func (w *worker) handle(r *run) {
	ctx := r.ctx
	if timeout := r.job.Options.Timeout; timeout > 0 {
		cause := fmt.Errorf("%w after %v", ErrTimeout, timeout)
		timed, stop := context.WithTimeoutCause(ctx, timeout, cause)
		defer stop()
		ctx = timed
		patience := timeout + min(w.q.config.TimeoutGrace, math.MaxInt64-timeout) // the sum may overflow
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
		e := runEnd{run: r, free: true}
		if r.settleOnce() {
			w.q.outcomeOf(&e, r.job, result, timeoutError(ctx, err))
		}
		w.runEnds <- e
		r.cancel(nil)
	}()
	value, err := w.handler(ctx, r.job)
	if err == nil {
		result, err = marshalResult(value)
	} else {
		_ = err.Error() // if it panics, because the error is a nil pointer for example, it does so here
	}
	returned = true
}

// marshalResult returns a handler's result as JSON, and nil for nil or null.
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

// timeoutError makes the timeout the reason of a run that failed after its time was
// over. A handler that finished its work nevertheless has succeeded.
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

// giveUp settles a run whose handler has not returned although its timeout and the grace
// period after it are over. The slot stays taken until the handler returns. The handler still has the
// job, so the outcome is worked out on a second copy.
func (w *worker) giveUp(r *run, cause error) {
	job, err := decodeJob(w.q, r.id, r.record)
	if err != nil || !r.settleOnce() {
		return
	}
	e := runEnd{run: r}
	w.q.outcomeOf(&e, job, nil, cause)
	w.runEnds <- e
	w.q.report(fmt.Errorf("%w: %w", ErrStuck, cause), "job %q", r.id)
}

// listIDs lists the ids of jobs for an error: the first ten, and the number of the rest.
func listIDs(ends []runEnd) string {
	const most = 10
	var b strings.Builder
	for i := range ends {
		if i == most {
			fmt.Fprintf(&b, ", and %d more", len(ends)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", ends[i].call.ID)
	}
	return b.String()
}
