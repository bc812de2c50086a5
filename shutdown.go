package beequeue

import (
	"fmt"
	"strings"
	"time"
)

// flushTime is how long a worker whose grace time is over may take to hand jobs
// back, and its handlers to notice that their contexts have ended.
const flushTime = 2 * time.Second

// stop has the worker take no more jobs, and ends its grace time at deadline, or
// earlier if it was told so.
func (w *worker) stop(deadline time.Time) {
	w.endSoft()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut == nil {
		w.deadline = deadline
		w.cut = time.AfterFunc(time.Until(deadline), w.endGrace)
	} else if deadline.Before(w.deadline) && w.cut.Stop() {
		w.deadline = deadline
		w.cut.Reset(time.Until(deadline))
	}
}

// endGrace cancels the handlers' contexts. Their jobs are the worker's to hand
// back from now on, whatever the handlers return.
func (w *worker) endGrace() {
	w.mu.Lock()
	close(w.over) // before the first job is cut: its handler may return at once
	for _, r := range w.runs {
		if r.decide() {
			r.cut = true
		}
		r.cancel(ErrClosed)
	}
	w.mu.Unlock()
	time.AfterFunc(flushTime, w.endHard)
}

// handBack returns the jobs of handlers that are out of time to waiting, along
// with the last outcomes.
func (w *worker) handBack() error {
	for w.undecided() || w.plan.inFlight() {
		select {
		case e := <-w.ends:
			w.note(e)
		case f := <-w.landed:
			if err := w.land(f); err != nil {
				return err
			}
		case <-w.hard.Done():
			if w.plan.inFlight() {
				if err := w.land(<-w.landed); err != nil {
					return err
				}
			}
		}
	}
	w.mu.Lock()
	var back []ending
	for id, r := range w.runs {
		if r.cut {
			back = append(back, ending{run: r, call: turnOutcome{id: id, claim: r.claim, what: turnReturned}})
		}
	}
	w.mu.Unlock()
	w.finishing = append(w.finishing, back...)
	w.plan.outcomes += len(back)
	for len(w.finishing) > 0 {
		f := w.turns[0]
		w.load(f)
		w.perform(f)
		if err := w.land(f); err != nil {
			return err
		}
	}
	if len(back) > 0 {
		return fmt.Errorf("%w: jobs %s", ErrUnfinished, names(back))
	}
	return nil
}

// undecided tells whether a handler has just returned and its outcome is about
// to arrive.
func (w *worker) undecided() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		if !r.cut && !r.noted {
			return w.hard.Err() == nil
		}
	}
	return false
}

// awaitHandlers waits until all handlers have returned, those without a job too.
// One that ignores its context is left behind.
func (w *worker) awaitHandlers() error {
	close(w.next)
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

// names lists the ids of some endings.
func names(endings []ending) string {
	const most = 10
	var b strings.Builder
	for i := range endings {
		if i == most {
			fmt.Fprintf(&b, ", and %d more", len(endings)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", endings[i].call.id)
	}
	return b.String()
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
