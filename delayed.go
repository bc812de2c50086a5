package beequeue

import (
	"context"
	"sync"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// recheck is the longest time between two looks at the delayed jobs. If a message about
// an earlier job is lost, the job is at most that much late.
const recheck = 5 * time.Second

// raiseDelayed moves delayed jobs to waiting as they come due. Every Process does so. It
// sleeps until the next job is due, by the server's clock, and hears of earlier jobs on
// the channel `earlierDelayed`.
func (w *worker) raiseDelayed(ctx context.Context) {
	alarm := newDueAlarm()
	stop := w.q.subscriber.hearDue(alarm.earlier)
	defer stop()
	var wait store.Pause
	for ctx.Err() == nil {
		alarm.clear()
		reply, err := w.q.store.Raise(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.q.report(err, "raise delayed jobs")
			}
			store.Sleep(ctx, wait.Next())
			continue
		}
		wait = store.Pause{}
		if reply.Raised > 0 {
			w.notices.add(func() { w.q.callbacks.fireRaised(w.q, reply.Raised) })
		}
		alarm.set(reply, time.Now())
		alarm.await(ctx)
	}
}

// A dueAlarm says when to look at the delayed jobs again. It has no Redis.
type dueAlarm struct {
	mu     sync.Mutex
	next   time.Time     // when to look, by the local clock
	ahead  time.Duration // the server's clock less the local one
	sooner chan struct{} // holds a value after next was moved forward
}

func newDueAlarm() *dueAlarm {
	return &dueAlarm{sooner: make(chan struct{}, 1)}
}

// clear comes before a look at the delayed jobs, so that set knows what was heard since.
func (a *dueAlarm) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = time.Time{}
}

// set takes the reply of a look at the delayed jobs, which came at now. A job that was
// heard of while the look was in flight may not be in the reply, and so its time stays.
func (a *dueAlarm) set(reply store.RaiseReply, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := recheck
	if reply.Wait >= 0 {
		wait = min(wait, reply.Wait)
	}
	if at := now.Add(wait); a.next.IsZero() || at.Before(a.next) {
		a.next = at
	}
	a.ahead = reply.Now.Sub(now)
}

// earlier moves the alarm forward for a job that is due at a time of the server's clock.
// The zero time means at once.
func (a *dueAlarm) earlier(due time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := time.Now()
	if !due.IsZero() {
		at = due.Add(-a.ahead)
	}
	if !a.next.IsZero() && !at.Before(a.next) {
		return
	}
	a.next = at
	select {
	case a.sooner <- struct{}{}:
	default:
	}
}

// await returns when it is time to look, or when ctx has ended.
func (a *dueAlarm) await(ctx context.Context) {
	for {
		a.mu.Lock()
		wait := time.Until(a.next)
		a.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			return
		case <-a.sooner:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
