package beequeue

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// beat keeps the worker's lease on its jobs, three times an interval, and
// cancels the handlers of jobs that are no longer its own.
func (w *worker) beat(ctx context.Context) {
	interval := w.q.config.StallInterval
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		jobs, runs := w.owned()
		if len(jobs) == 0 {
			continue
		}
		try, cancel := context.WithTimeout(ctx, max(interval, attemptTimeout))
		lost, err := w.q.heartbeat(try, w.token, interval, jobs)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.q.report(err, "heartbeat")
			continue
		}
		for _, id := range lost {
			w.lose(id, runs[id])
		}
	}
}

// owned lists the jobs in flight, as heartbeat takes them.
func (w *worker) owned() (jobs []string, runs map[string]*run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, r := range w.runs {
		jobs = append(jobs, id, r.claim)
	}
	return jobs, maps.Clone(w.runs)
}

// lose ends a run whose job is no longer this worker's. If its outcome is on its
// way already, the call that carries it will tell.
func (w *worker) lose(id string, r *run) {
	if r == nil || !r.decide() {
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
