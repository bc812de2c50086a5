package beequeue

import (
	"context"
	"math/rand/v2"
	"time"
)

// sweepStalled looks for jobs of lost workers, in every worker; Redis sees to it
// that one look an interval is taken (lua/sweep.lua). If there was none for longer, Redis
// was away or all workers were, and none could phone in: so the first look after that
// takes nothing back.
func (w *worker) sweepStalled(ctx context.Context) {
	var cursors [3]string
	var wait pause
	for ctx.Err() == nil {
		reply, err := w.q.checkStalled(ctx, &cursors, true, w.notices.add)
		if err != nil {
			if ctx.Err() == nil {
				w.q.report(err, "check for stalled jobs")
			}
			sleep(ctx, wait.next())
			continue
		}
		wait = pause{}
		// A little apart, so that of many workers one comes first.
		sleep(ctx, reply.next+rand.N(20*time.Millisecond)) //nolint:gosec // spreads load, guards nothing
	}
}

// CheckStalled looks for jobs of lost workers once, and returns the ids of those
// it put back into waiting: Bee-Queue's checkStalledJobs. Process does so by
// itself. As in Bee-Queue, it finds jobs whose worker has been silent since the
// check before, and nothing if there was a check, by whatever process, less than
// Config.StallInterval ago. Jobs that stalled more than Config.MaxStalls times
// are failed.
func (q *Queue) CheckStalled(ctx context.Context) ([]string, error) {
	if q.isClosed() {
		return nil, q.fault(ErrClosed, "check for stalled jobs")
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	reply, err := q.checkStalled(ctx, new([3]string), false, func(f func()) { f() })
	if err != nil {
		return reply.stalled, q.fault(err, "check for stalled jobs")
	}
	return reply.stalled, nil
}

// checkStalled makes one check, and passes the callbacks that are due to notify.
func (q *Queue) checkStalled(ctx context.Context, cursors *[3]string, regular bool, notify func(func())) (sweepReply, error) {
	reply, err := q.sweep(ctx, *cursors, regular)
	if err != nil {
		return reply, err
	}
	*cursors = reply.cursors
	for _, id := range reply.stalled {
		notify(func() { q.callbacks.fireStalled(q, id) })
	}
	for _, c := range reply.failing {
		if err := q.failStalled(ctx, c, notify); err != nil {
			return reply, err
		}
	}
	return reply, nil
}

// failStalled fails a job that was taken back from lost workers too often. If
// this fails, or this process dies, the job stalls again, and the next check
// comes to the same end.
func (q *Queue) failStalled(ctx context.Context, c claimed, notify func(func())) error {
	e := ending{run: &run{id: c.id, record: c.record, claim: sweepClaim}}
	job, err := decodeJob(q, c.id, c.record)
	if err != nil {
		e.call = q.unreadable(c.id, sweepClaim, err)
	} else {
		q.settle(&e, job, nil, &stalledError{times: q.config.MaxStalls + 1})
	}
	var reply turnReply
	err = q.control.serialized(ctx, func() error {
		call := q.prepareTurn(&q.control, q.token, 0, 0, false, []turnOutcome{e.call})
		var err error
		reply, err = q.turn(ctx, &call, nil)
		return err
	})
	if err == nil && reply.verdicts[0] == recorded && e.outcome != nil {
		notify(func() { q.callbacks.fireOutcome(q, e.job, *e.outcome) })
	}
	return err
}
