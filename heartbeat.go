package beequeue

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// beat renews the worker's lease on its jobs, three times in Config.StallInterval, and
// cancels the handlers of jobs that are no longer the worker's.
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
		tryCtx, cancel := context.WithTimeout(ctx, max(interval, store.AttemptTimeout))
		lost, err := w.q.store.Heartbeat(tryCtx, w.token, interval, jobs)
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

// owned lists the jobs that the worker owns: as heartbeat takes them, and by id.
func (w *worker) owned() (jobs []string, runs map[string]*run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, r := range w.runs {
		jobs = append(jobs, id, r.claim)
	}
	return jobs, maps.Clone(w.runs)
}

// lose ends a run whose job is no longer this worker's. If the run's outcome is on its
// way already, lose does nothing, because the call that carries the outcome reports the
// loss.
func (w *worker) lose(id string, r *run) {
	if r == nil || !r.settleOnce() {
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
