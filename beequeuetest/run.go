package beequeuetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
)

// An Outcome is one run of a job and what became of it.
type Outcome struct {
	// Job is the job as it was recorded at the end of the run: Options.Retries
	// are those left, Options.Stacktraces have the errors of failed runs.
	Job *beequeue.Job
	// Status is StatusSucceeded, StatusRetrying, or StatusFailed if the job
	// failed for good. It is empty if the run did not count, because the job was
	// removed meanwhile.
	Status beequeue.Status
	// Result is what the handler returned, as JSON; nil for nil.
	Result json.RawMessage
	// Err is why the run failed: the handler's error, a *beequeue.PanicError if
	// it panicked, one that wraps beequeue.ErrTimeout if it took too long.
	Err error
}

// maxRuns is how many runs are taken for a loop without an end.
const maxRuns = 1000

// Run runs the jobs of a queue that are waiting or due, one after the other in
// their order, until there are none, and returns what became of each run. Jobs
// that are saved meanwhile, and jobs that are retried without a wait, are run
// too; jobs that are delayed are not. The kit's clock stands still meanwhile.
//
// The handler runs as in Queue.Process, with the same outcomes, in another
// goroutine than the test's. If it ends that with tb.FailNow, as testify's
// require does, Run ends the test.
//
// The test fails if a Process of the same queue value is under way, and if there
// is more to run after 1,000 runs.
func (k *Kit) Run(tb testing.TB, q *beequeue.Queue, handler beequeue.Handler) []Outcome {
	tb.Helper()
	k.clock.hold()
	defer k.clock.release()
	r := newRunner(q, handler)
	defer r.stop()
	r.drain(tb)
	return r.outcomes
}

// RunAll works like Run, and then advances the kit's clock to the time of the
// next delayed job, and runs that, until nothing is waiting or delayed. The queue
// must be on this kit.
func (k *Kit) RunAll(tb testing.TB, q *beequeue.Queue, handler beequeue.Handler) []Outcome {
	tb.Helper()
	k.clock.hold()
	defer k.clock.release()
	r := newRunner(q, handler)
	defer r.stop()
	r.drain(tb)
	for {
		due, ok := k.nextDue(q)
		if !ok {
			return r.outcomes
		}
		k.Advance(max(0, due.Sub(k.Now())))
		r.drain(tb)
	}
}

// nextDue gives the time of the first delayed job.
func (k *Kit) nextDue(q *beequeue.Queue) (due time.Time, ok bool) {
	delayed, err := k.redis.DB(0).SortedSet(q.KeyPrefix() + "delayed")
	if err != nil {
		return due, false // no such key
	}
	for _, score := range delayed {
		if at := time.UnixMilli(int64(score)); !ok || at.Before(due) {
			due, ok = at, true
		}
	}
	return due, ok
}

// A runner runs jobs and keeps what became of them.
type runner struct {
	q       *beequeue.Queue
	handler beequeue.Handler

	mu       sync.Mutex
	cancel   context.CancelFunc // ends the Drain under way
	stopped  bool
	outcomes []Outcome
	exited   string        // the job whose handler ended its goroutine
	endless  *beequeue.Job // the job that was one run too many
}

// newRunner listens to the queue. A queue does not let go of a callback, so
// those of a runner that was stopped do nothing.
func newRunner(q *beequeue.Queue, handler beequeue.Handler) *runner {
	r := &runner{q: q, handler: handler}
	q.OnSucceeded(func(job *beequeue.Job, result json.RawMessage) {
		r.finish(Outcome{Job: job, Status: beequeue.StatusSucceeded, Result: result})
	})
	q.OnRetrying(func(job *beequeue.Job, err error) {
		r.finish(Outcome{Job: job, Status: beequeue.StatusRetrying, Err: err})
	})
	q.OnFailedForGood(func(job *beequeue.Job, err error) {
		r.finish(Outcome{Job: job, Status: beequeue.StatusFailed, Err: err})
	})
	return r
}

func (r *runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

// drain runs what is waiting or due.
func (r *runner) drain(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.mu.Lock()
	r.cancel = cancel
	r.mu.Unlock()

	var handler beequeue.Handler
	if r.handler != nil {
		handler = r.run
	}
	err := r.q.Drain(ctx, 1, handler)

	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.exited != "":
		tb.Logf("beequeuetest: the handler of job %q ended its goroutine, as FailNow does", r.exited)
		tb.FailNow()
	case err != nil:
		tb.Fatalf("beequeuetest: run: %v", err)
	case r.endless != nil:
		tb.Fatalf("beequeuetest: queue %q has jobs to run after %d runs; the next is job %q with data %s",
			r.q.Name(), maxRuns, r.endless.ID, excerpt(r.endless.Data))
	}
}

// run is the handler that the queue gets.
func (r *runner) run(ctx context.Context, job *beequeue.Job) (any, error) {
	if err := r.start(job); err != nil {
		return nil, err
	}
	return r.handler(ctx, job)
}

// start notes the start of a run, or ends the Drain if it is one too many.
func (r *runner) start(job *beequeue.Job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.outcomes) == maxRuns {
		r.endless = job
		r.cancel()
		return errors.New("not run: the test has ended")
	}
	r.outcomes = append(r.outcomes, Outcome{Job: job})
	return nil
}

// finish takes the outcome of a run that was recorded. It may come after the next
// run has begun, of the same job even, but each run has a *Job of its own. Only
// the outcome of a run that timed out, and whose handler goes on, comes with
// another one; it is the first run of the job whose outcome is missing.
func (r *runner) finish(o Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	if p := (*beequeue.PanicError)(nil); errors.As(o.Err, &p) && p.Value == nil {
		r.exited = o.Job.ID
	}
	i := slices.IndexFunc(r.outcomes, func(run Outcome) bool { return run.Job == o.Job })
	if i < 0 {
		i = slices.IndexFunc(r.outcomes, func(run Outcome) bool { return run.Job.ID == o.Job.ID && run.Status == "" })
	}
	if i >= 0 {
		r.outcomes[i] = o
	}
}
