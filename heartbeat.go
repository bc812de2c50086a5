package beequeue

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// beat phones in for all that the worker may own, and cancels the handlers of jobs that are
// no longer the worker's. It does so three times in Config.StallInterval, and whenever the
// worker has looked for stalled jobs: a process with a shorter interval may have made that
// check, and may make the next before this worker's third of an interval is over.
func (w *worker) beat(ctx context.Context) {
	interval := w.q.config.StallInterval
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	var patience time.Duration // for replies of calls that may have claimed
	for {
		select {
		case <-ticker.C:
			patience = interval / 3
		case soon := <-w.looked:
			if patience = interval / 3; soon {
				patience = 0
			}
		case <-ctx.Done():
			return
		}
		jobs, runs := w.owned()
		unheard := w.unheard(patience)
		if len(jobs) == 0 && len(unheard) == 0 {
			continue
		}
		tryCtx, cancel := context.WithTimeout(ctx, max(interval, store.AttemptTimeout))
		lost, err := w.q.store.Heartbeat(tryCtx, w.token, interval, unheard, jobs)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.q.report(err, "heartbeat")
			continue
		}
		for _, job := range lost {
			if r := runs[job.ID]; r != nil && r.claim == job.Claim {
				w.lose(job.ID, r)
			}
		}
	}
}

// owned returns the jobs that the worker owns, as Heartbeat takes them, and the runs by id.
// A job is the worker's until its outcome is recorded.
func (w *worker) owned() (jobs []string, runs map[string]*run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, r := range w.runs {
		jobs = append(jobs, id, r.claim)
	}
	for id, claim := range w.returning {
		jobs = append(jobs, id, claim)
	}
	return jobs, maps.Clone(w.runs)
}

// unheard returns the calls whose replies are overdue. The worker owns what they have
// claimed, though it does not know those jobs yet.
func (w *worker) unheard(patience time.Duration) (calls []store.CallName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.claims {
		if time.Since(c.due) > patience {
			calls = append(calls, c.name)
		}
	}
	return calls
}

// lose ends a run whose job is no longer this worker's. If the run's outcome is on its
// way already, lose does nothing, because the call that carries the outcome reports the
// loss.
func (w *worker) lose(id string, r *run) {
	if !r.settleOnce() {
		return
	}
	w.mu.Lock()
	if w.runs[id] == r {
		delete(w.runs, id)
	}
	w.mu.Unlock()
	r.cancel(ErrOwnershipLost)
	w.q.report(fmt.Errorf("%w: it was taken back or removed while it ran", ErrOwnershipLost), "job %q", id)
}
