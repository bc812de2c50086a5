package beequeue

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// wake blocks on Redis while nothing is waiting, and tells the loop when
// something is. BLMOVE from the end of the list to the same end takes nothing:
// so nothing is lost if the reply is, or if the worker stops meanwhile.
func (w *worker) wake(ctx context.Context) {
	pooled := false // the connection went back to the client's pool
	defer func() {  //nolint:contextcheck // ctx has ended
		if pooled {
			w.q.hangUp()
		}
	}()
	var wait pause
	for {
		select {
		case <-w.arm:
		case <-ctx.Done():
			return
		}
		for waiting := false; !waiting; {
			var err error
			waiting, err = w.q.block(ctx)
			if pooled = err == nil; !pooled {
				if ctx.Err() != nil {
					return
				}
				// A server that is out of memory, or denies the command, may still
				// let jobs be claimed: so the loop looks.
				w.q.report(err, "wait for jobs")
				sleep(ctx, wait.next())
				break
			}
			wait = pause{}
		}
		select {
		case w.woke <- struct{}{}:
		default:
		}
	}
}

// blockTime is how long one blocking command waits. A worker that waits at a
// master that was demoted notices after this time at the latest.
const blockTime = 2 * time.Second

// block waits until a job is waiting, or for blockTime.
func (q *Queue) block(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, blockTime+attemptTimeout)
	defer cancel()
	command := q.client.B().Blmove().Source(q.keys.waiting).Destination(q.keys.waiting).Right().Right().
		Timeout(blockTime.Seconds()).Build()
	err := q.client.Do(ctx, command).Error()
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	return err == nil, err
}

// hangUp closes the connection that block left in the client's pool. The client
// of a cluster takes it from there with the first command.
func (q *Queue) hangUp() {
	conn, _ := q.client.Dedicate()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Do(ctx, conn.B().Ping().Build().SetSlot(q.keys.waiting)).Error() // closed in any case
}
