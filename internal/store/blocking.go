package store

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// How a worker waits for jobs: a command that blocks until there is one, and right behind
// it, on the same connection, a turn that claims it. Redis runs the turn as soon as the
// command ends, so the worker hears of the job and has it in one answer.
//
// The command is BLMOVE from the end of `waiting` to the same end. It takes nothing, so
// nothing is lost if the connection is. The turn has a name, as all turns have: if its
// reply does not come, it is made again, and gives what it claimed.

// BlockTime is how long one blocking command waits. A worker that waits at a master that
// was demoted notices after this time at the latest.
const BlockTime = 2 * time.Second

// A Blocker makes a worker's blocking calls, one at a time. Its zero value is ready.
//
// In a cluster it has a connection of its own, and not one of the client's pool: the
// client of a cluster panics when it is asked to go elsewhere with a group of commands of
// which one blocks (rueidis 1.0.79). Elsewhere the client knows best: that of Sentinel
// changes over to a new master by itself, which a connection of ours does not.
type Blocker struct {
	conn    rueidis.DedicatedClient // its own, if it has one
	release func()
	pooled  bool // it left a connection in the client's pool
}

// A Blocked is what came of a blocking call.
type Blocked struct {
	Sent  bool      // false: ctx ended before anything was sent
	Block error     // what is wrong with the blocking command
	Turn  error     // what is wrong with the turn behind it
	Reply TurnReply // the turn's, unless Turn is an error
}

// TurnWhenJob waits until a job is waiting, or for BlockTime, and then makes the turn once.
func (s *Store) TurnWhenJob(ctx context.Context, w *Blocker, c *TurnCall) (b Blocked) {
	conn := rueidis.CoreClient(s.client)
	if s.client.Mode() == rueidis.ClientModeCluster {
		if w.conn == nil {
			if w.conn, w.release = Dedicate(ctx, s.client); w.conn == nil {
				return b
			}
		}
		conn = w.conn
	} else if ctx.Err() != nil {
		return b // what the call before left in the pool is still there
	}
	var message rueidis.RedisMessage
	b.Sent = true
	b.Block, message, b.Turn = s.blockThenTurn(ctx, conn, c)
	moved, broken := isRedirect(b.Block) || isRedirect(b.Turn), isBroken(b.Block) || isBroken(b.Turn)
	w.pooled = w.conn == nil && !broken
	if moved || broken {
		w.disconnect()
	}
	if moved {
		b.Block = nil
	}
	if b.Turn == nil {
		b.Reply, b.Turn = readTurn(c, message)
	}
	if b.Turn != nil {
		c.Reached = !neverReached(b.Turn)
	}
	return b
}

// blockThenTurn sends the two commands together.
func (s *Store) blockThenTurn(ctx context.Context, conn rueidis.CoreClient, c *TurnCall) (blocked error, message rueidis.RedisMessage, err error) {
	// Not WithTimeout: with a deadline, rueidis does not look at cancellation, where it
	// does not pipeline.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer time.AfterFunc(BlockTime+AttemptTimeout, func() { cancel(context.DeadlineExceeded) }).Stop()
	b := conn.B()
	waiting := s.keys.Name(Waiting)
	results := conn.DoMulti(ctx,
		b.Blmove().Source(waiting).Destination(waiting).Right().Right().Timeout(BlockTime.Seconds()).Build(),
		b.Evalsha().Sha1(s.scripts.turn.SHA).Numkeys(int64(len(s.turnKeys))).Key(s.turnKeys...).Arg(c.args...).Build())
	switch blocked = results[0].Error(); {
	case rueidis.IsRedisNil(blocked):
		blocked = nil
	case errors.Is(blocked, context.Canceled):
		blocked = context.Cause(ctx)
	}
	message, err = results[1].ToMessage()
	return blocked, message, err
}

// CloseBlocker closes the worker's own connection, and the one that waiting left in the
// client's pool. A pooled connection that the client does not give at once is in use by
// others.
func (s *Store) CloseBlocker(ctx context.Context, w *Blocker) {
	w.disconnect()
	if !w.pooled {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if conn, release := Dedicate(ctx, s.client); conn != nil {
		conn.Close()
		release()
	}
}

// disconnect closes the connection, if there is one of its own.
func (w *Blocker) disconnect() {
	if w.conn != nil {
		w.conn.Close()
		w.release()
		w.conn, w.release = nil, nil
	}
}

// Dedicate returns a connection for one user alone, or nil if ctx ended first. The client
// connects without regard to any context, and to a server that is frozen until its dial
// timeout has passed: then the connection is closed as it comes.
func Dedicate(ctx context.Context, client rueidis.Client) (rueidis.DedicatedClient, func()) {
	type dedicated struct {
		conn    rueidis.DedicatedClient
		release func()
	}
	made := make(chan dedicated)
	go func() {
		conn, release := client.Dedicate()
		select {
		case made <- dedicated{conn, release}:
		case <-ctx.Done():
			conn.Close()
			release()
		}
	}()
	select {
	case d := <-made:
		return d.conn, d.release
	case <-ctx.Done():
		return nil, nil
	}
}
