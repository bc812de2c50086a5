package beequeue

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// followChecks looks at the gate of the stall check whenever that may open, and tells the
// heartbeat: after each check, whoever makes it, the worker phones in. A Process also makes
// checks, until it is to stop; Redis allows one in Config.StallInterval
// (internal/store/lua/sweep.lua). A worker that is silent then is on probation, see
// store.Probation: maybe no heartbeat could arrive, because Redis was away or all workers
// were stopped.
func (w *worker) followChecks(ctx context.Context, drain bool) {
	var cursors store.Cursors
	var wait store.Pause
	for ctx.Err() == nil {
		var next time.Duration
		var err error
		checks := !drain && w.claimCtx.Err() == nil
		if checks {
			next, err = w.sweepOnce(w.claimCtx, &cursors) //nolint:contextcheck // ctx goes on until the handlers have returned
		} else {
			next, err = w.lookAtGate(ctx)
		}
		if err != nil {
			if ctx.Err() == nil && (!checks || w.claimCtx.Err() == nil) {
				w.q.report(err, "check for stalled jobs")
			}
			store.Sleep(ctx, wait.Next())
			continue
		}
		wait = store.Pause{}
		// Spread out, so that of many workers one comes first.
		store.Sleep(ctx, next+rand.N(20*time.Millisecond)) //nolint:gosec // spreads load, guards nothing
	}
}

// lookAtGate returns how long the gate stays shut. If it is open, nobody has made a check
// lately, and may make one at any time.
func (w *worker) lookAtGate(ctx context.Context) (next time.Duration, err error) {
	left, err := w.q.store.GateLeft(ctx)
	if err != nil {
		return 0, err
	}
	w.noteLook(left)
	if left == 0 {
		left = min(w.q.config.StallInterval/3, time.Second)
	}
	return left, nil
}

// noteLook has the heartbeat phone in. If the next check is due before a blocking call's
// reply is overdue by itself, it phones in for that call as well.
func (w *worker) noteLook(next time.Duration) {
	select {
	case w.looked <- next < 2*store.BlockTime:
	default:
	}
}

// sweepOnce makes one check, and returns the time until the next. If the check doubts
// jobs, a second look of the same round comes after the probation. It takes back the jobs
// that nobody has phoned in for by then.
func (w *worker) sweepOnce(ctx context.Context, cursors *store.Cursors) (next time.Duration, err error) {
	round := store.NewRound()
	reply, err := w.q.store.Sweep(ctx, *cursors, store.SweepDoubt, round)
	if err != nil {
		return 0, err
	}
	w.noteLook(reply.Next)
	*cursors = reply.Cursors
	if len(reply.IDs) == 0 {
		return reply.Next, nil
	}
	if !store.Sleep(ctx, w.q.store.Probation()) {
		return 0, nil
	}
	const most = 1000 // ids in a call, which keeps the script short
	for ids := range slices.Chunk(reply.IDs, most) {
		confirmed, err := w.q.store.Sweep(ctx, *cursors, store.SweepConfirm, round, ids...)
		if err != nil {
			return 0, err
		}
		if err := w.q.takenBack(ctx, confirmed, w.notices.add); err != nil {
			return 0, err
		}
	}
	return max(0, reply.Next-w.q.store.Probation()), nil
}

// CheckStalled looks for jobs of lost workers once, and returns the ids of the jobs
// it put back into waiting: Bee-Queue's checkStalledJobs. Process makes such checks
// by itself.
//
// As in Bee-Queue, it finds jobs that nobody has phoned in for since the check
// before. It finds nothing if any process made a check less than
// Config.StallInterval ago. Jobs that stalled more than Config.MaxStalls times are
// failed.
//
// Unlike Process, it gives silent workers no probation. Do not call it right after
// Redis was away: workers that were cut off may not have phoned in again.
//
// If ctx has no deadline, Config.CallTimeout bounds the call. ErrClosed comes back
// after Close.
func (q *Queue) CheckStalled(ctx context.Context) ([]string, error) {
	if q.isClosed() {
		return nil, q.wrap(ErrClosed, "check for stalled jobs")
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	reply, err := q.store.Sweep(ctx, store.Cursors{}, store.SweepTake, store.NewRound())
	if err == nil {
		err = q.takenBack(ctx, reply, func(f func()) { f() })
	}
	if err != nil {
		return reply.IDs, q.wrap(err, "check for stalled jobs")
	}
	return reply.IDs, nil
}

// takenBack passes the OnStalled callbacks for the jobs that were taken back to notify,
// and fails the jobs that were taken back too often.
func (q *Queue) takenBack(ctx context.Context, reply store.SweepReply, notify func(func())) error {
	for _, id := range reply.IDs {
		notify(func() { q.callbacks.fireStalled(q, id) })
	}
	for _, c := range reply.Failing {
		if err := q.failStalled(ctx, c, notify); err != nil {
			return err
		}
	}
	return nil
}

// failStalled fails a job that was taken back from lost workers too often. If
// failStalled returns an error, or the process dies, the job stalls again, and the next
// check fails it.
func (q *Queue) failStalled(ctx context.Context, c store.Claimed, notify func(func())) error {
	e := runEnd{run: &run{id: c.ID, record: c.Record, claim: store.SweepClaim}}
	job, err := decodeJob(q, c.ID, c.Record)
	if err != nil {
		e.call = q.unreadable(c.ID, store.SweepClaim, err)
	} else {
		q.outcomeOf(&e, job, nil, &stalledError{times: q.config.MaxStalls + 1})
	}
	var reply store.TurnReply
	err = q.control.Serialized(ctx, func() error {
		call := q.store.PrepareTurn(&q.control, store.Turn{Token: q.token, Outcomes: []store.Outcome{e.call}})
		var err error
		reply, err = q.turn(ctx, &call, nil)
		return err
	})
	if err == nil && reply.Verdicts[0] == store.Recorded && e.outcome != nil {
		notify(func() { q.callbacks.fireOutcome(q, e.job, *e.outcome) })
	}
	return err
}
