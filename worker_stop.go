package beequeue

import (
	"fmt"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// stop has the worker take no more jobs, and ends its grace period at deadline. Called
// again, it can only end the grace period earlier.
func (w *worker) stop(deadline time.Time) {
	w.endClaims()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.graceTimer == nil {
		w.deadline = deadline
		w.graceTimer = time.AfterFunc(time.Until(deadline), w.endGrace)
	} else if deadline.Before(w.deadline) && w.graceTimer.Stop() {
		w.deadline = deadline
		w.graceTimer.Reset(time.Until(deadline))
	}
}

// endGrace cancels the handlers' contexts. From now on the worker hands back their jobs,
// whatever the handlers return.
func (w *worker) endGrace() {
	w.mu.Lock()
	close(w.expired) // before the first context ends, because its handler may return at once
	for _, r := range w.runs {
		if r.settleOnce() {
			r.handBack = true
		}
		r.cancel(ErrClosed)
	}
	w.mu.Unlock()
	time.AfterFunc(flushTime, w.endCalls)
}

// handBack returns the jobs of handlers that are out of time to waiting, along with the
// last outcomes.
func (w *worker) handBack() error {
	for w.outcomeDue() || w.plan.inFlight() {
		select {
		case e := <-w.runEnds:
			w.noteEnd(e)
		case l := <-w.replies:
			if err := w.receive(l); err != nil {
				return err
			}
		case <-w.callCtx.Done():
			if w.plan.inFlight() {
				if err := w.receive(<-w.replies); err != nil {
					return err
				}
			}
		}
	}
	w.mu.Lock()
	var back []runEnd
	for id, r := range w.runs {
		if r.handBack {
			back = append(back, runEnd{run: r, call: store.Outcome{ID: id, Claim: r.claim, Kind: store.EndReturned}})
		}
	}
	w.mu.Unlock()
	w.addOutcomes(back...)
	for len(w.outcomes) > 0 {
		l := w.lanes[0]
		w.fill(l)
		w.send(l)
		if err := w.receive(l); err != nil {
			return err
		}
	}
	if len(back) > 0 {
		return fmt.Errorf("%w: jobs %s", ErrUnfinished, listIDs(back))
	}
	return nil
}

// outcomeDue reports whether an outcome is about to arrive: a handler has settled it, and
// the loop does not have it yet.
func (w *worker) outcomeDue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		if !r.handBack && !r.noted {
			return w.callCtx.Err() == nil
		}
	}
	return false
}

// awaitHandlers waits until all handlers have returned, also those whose job was lost. It
// leaves behind a handler that ignores the end of its context for flushTime, and then
// returns ErrStuck.
func (w *worker) awaitHandlers() error {
	close(w.nextRun)
	returned := make(chan struct{})
	go func() {
		w.handlers.Wait()
		close(returned)
	}()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-returned:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: handlers have not returned", ErrStuck)
	}
}
