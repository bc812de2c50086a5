package beequeue

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// sweepStalled looks for jobs of lost workers, in every worker; Redis sees to it
// that one look an interval is taken (lua/sweep.lua). Who is silent then has a little
// time: maybe nobody could phone in, for Redis was away or all workers were stopped.
func (w *worker) sweepStalled(ctx context.Context) {
	var cursors [3]string
	var wait pause
	for ctx.Err() == nil {
		next, err := w.sweepOnce(ctx, &cursors)
		if err != nil {
			if ctx.Err() == nil {
				w.q.report(err, "check for stalled jobs")
			}
			sleep(ctx, wait.next())
			continue
		}
		wait = pause{}
		// A little apart, so that of many workers one comes first.
		sleep(ctx, next+rand.N(20*time.Millisecond)) //nolint:gosec // spreads load, guards nothing
	}
}

// probation is the time that a silent worker is given to phone in, before its jobs are
// taken back. While Redis does not answer, heartbeats are tried four times in it.
func (q *Queue) probation() time.Duration { return min(q.config.StallInterval/2, time.Second) }

// sweepOnce makes one check, in two looks if there is cause, and gives the time until
// the next.
func (w *worker) sweepOnce(ctx context.Context, cursors *[3]string) (next time.Duration, err error) {
	reply, err := w.q.sweep(ctx, *cursors, sweepDoubt)
	if err != nil {
		return 0, err
	}
	*cursors = reply.cursors
	if len(reply.ids) == 0 {
		return reply.next, nil
	}
	if !sleep(ctx, w.q.probation()) {
		return 0, nil
	}
	const most = 1000 // ids in a call
	for ids := range slices.Chunk(reply.ids, most) {
		confirmed, err := w.q.sweep(ctx, *cursors, sweepConfirm, ids...)
		if err != nil {
			return 0, err
		}
		if err := w.q.takenBack(ctx, confirmed, w.notices.add); err != nil {
			return 0, err
		}
	}
	return max(0, reply.next-w.q.probation()), nil
}

// CheckStalled looks for jobs of lost workers once, and returns the ids of those
// it put back into waiting: Bee-Queue's checkStalledJobs. Process does so by
// itself. As in Bee-Queue, it finds jobs whose worker has been silent since the
// check before, and nothing if there was a check, by whatever process, less than
// Config.StallInterval ago. Other than Process, it gives workers that were cut off and
// have not phoned in again no time to: do not call it right after Redis was away. Jobs
// that stalled more than Config.MaxStalls times
// are failed.
func (q *Queue) CheckStalled(ctx context.Context) ([]string, error) {
	if q.isClosed() {
		return nil, q.wrap(ErrClosed, "check for stalled jobs")
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	reply, err := q.sweep(ctx, [3]string{}, sweepTake)
	if err == nil {
		err = q.takenBack(ctx, reply, func(f func()) { f() })
	}
	if err != nil {
		return reply.ids, q.wrap(err, "check for stalled jobs")
	}
	return reply.ids, nil
}

// takenBack passes the callbacks that are due for jobs that were taken back to notify,
// and fails those of them that were so too often.
func (q *Queue) takenBack(ctx context.Context, reply sweepReply, notify func(func())) error {
	for _, id := range reply.ids {
		notify(func() { q.callbacks.fireStalled(q, id) })
	}
	for _, c := range reply.failing {
		if err := q.failStalled(ctx, c, notify); err != nil {
			return err
		}
	}
	return nil
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
