package beequeue

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// While nothing is waiting, a worker that has a free slot keeps one call standing at
// Redis: a command that blocks until there is a job, and right behind it, on the same
// connection, a turn that claims one. Redis runs the turn as soon as the command
// ends, so a job that is saved is on its way to the worker at once: the worker hears
// of it and has it in one answer.
//
// The command is BLMOVE from the end of waiting to the same end, which takes nothing:
// nothing is lost if the connection is. The turn has a name, as all turns have: if its
// reply does not come, it is made again, and gives what it claimed. It claims one job,
// not as many as slots are free, so that a machine that vanishes without a word keeps
// no more than that from others until the stall check.

// blockTime is how long one blocking command waits. A worker that waits at a
// master that was demoted notices after this time at the latest.
const blockTime = 2 * time.Second

// wait has a call wait for jobs.
func (w *worker) wait() {
	f := w.standing
	f.aloft, f.want, f.began, f.lease = true, 1, time.Now(), w.q.config.StallInterval
	w.plan.beginBlocking()
	f.call = w.q.prepareTurn(&f.lane, w.token, f.lease, -f.want, w.large, nil)
	w.flights.Go(func() {
		w.stand(f)
		w.landed <- f
	})
}

// stand makes the call. When the worker is to stop, it ends it, and finds out what it
// had claimed.
func (w *worker) stand(f *flight) {
	conn := rueidis.CoreClient(w.q.client)
	if w.q.client.Mode() == rueidis.ClientModeCluster {
		if f.conn == nil {
			if f.conn, f.hangUp = dedicate(w.soft, w.q.client); f.conn == nil {
				return // the worker stopped before anything was sent
			}
		}
		conn = f.conn
	} else if w.soft.Err() != nil {
		return // and what the call before this one left in the pool is still there
	}
	blocked, message, err := w.q.turnOnceWaiting(w.soft, conn, &f.call)
	moved, broken := isRedirect(blocked) || isRedirect(err), isBroken(blocked) || isBroken(err)
	f.pooled = f.conn == nil && !broken
	if moved || broken {
		f.disconnect()
	}
	if moved {
		blocked = nil
	}
	if err == nil {
		f.reply, err = readTurn(&f.call, message)
	}
	if err == nil {
		f.err = nil
		w.q.tellUnpublished(f.reply)
		w.fetch(f)
	} else {
		f.call.reached = !neverReached(err)
		if w.soft.Err() != nil {
			f.call.claimNothing()
		}
		w.perform(f)
	}
	switch {
	case blocked == nil && f.err == nil:
		f.refused = pause{}
	case blocked == nil: // the turn was refused, which perform has told
	case w.soft.Err() == nil:
		// A server that is out of memory, or denies the command, may still let jobs be
		// claimed: so the loop goes on, if not at once.
		w.q.report(blocked, "wait for jobs")
		if len(f.reply.jobs) == 0 {
			sleep(w.soft, f.refused.next())
		}
	}
}

// disconnect closes the lane's own connection, if it has one.
func (f *flight) disconnect() {
	if f.conn != nil {
		f.conn.Close()
		f.hangUp()
		f.conn, f.hangUp = nil, nil
	}
}

// turnOnceWaiting waits until a job is waiting, or for blockTime, and then runs a
// turn. It gives what is wrong with the one and with the other.
//
// In a cluster, it has a connection of its own, and not one of the client's pool: the
// client of a cluster panics when it is asked to go elsewhere with a group of commands
// of which one blocks (rueidis 1.0.79). Elsewhere the client knows best: that of
// Sentinel changes over to a new master by itself, which a connection of ours does not.
func (q *Queue) turnOnceWaiting(ctx context.Context, conn rueidis.CoreClient, c *turnCall) (blocked error, message rueidis.RedisMessage, err error) {
	// Not WithTimeout: with a deadline, rueidis does not look at cancellation, where it
	// does not pipeline.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer time.AfterFunc(blockTime+attemptTimeout, func() { cancel(context.DeadlineExceeded) }).Stop()
	b := conn.B()
	results := conn.DoMulti(ctx,
		b.Blmove().Source(q.keys.waiting).Destination(q.keys.waiting).Right().Right().Timeout(blockTime.Seconds()).Build(),
		b.Evalsha().Sha1(q.scripts.turnSHA).Numkeys(int64(len(q.scripts.turnKeys))).Key(q.scripts.turnKeys...).Arg(c.args...).Build())
	switch blocked = results[0].Error(); {
	case rueidis.IsRedisNil(blocked):
		blocked = nil
	case errors.Is(blocked, context.Canceled):
		blocked = context.Cause(ctx)
	}
	message, err = results[1].ToMessage()
	return blocked, message, err
}

// closePooled closes the connection that waiting left in the client's pool. One that the
// client does not give at once is in use by others.
func (q *Queue) closePooled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if conn, hangUp := dedicate(ctx, q.client); conn != nil {
		conn.Close()
		hangUp()
	}
}

// isBroken tells whether an error is of the connection.
func isBroken(err error) bool {
	_, reply := rueidis.IsRedisErr(err)
	return err != nil && !reply && !rueidis.IsRedisNil(err)
}

// isRedirect tells whether a node of a cluster sends its caller to another.
func isRedirect(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	_, moved := reply.IsMoved()
	_, ask := reply.IsAsk()
	return moved || ask
}
