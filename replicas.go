package beequeue

import (
	"context"
	"crypto/sha1" //nolint:gosec // names a script in Redis, guards nothing
	"fmt"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// replicaPatience is how long one try waits for the replicas.
const replicaPatience = time.Second

// replicated runs a script, and waits until Config.SaveReplicas replicas have what it
// wrote. WAIT counts the writes of its own connection (Redis docs), so the two go
// together on one that nobody else uses.
func (q *Queue) replicated(source string, keys, args []string) request {
	sha := fmt.Sprintf("%x", sha1.Sum([]byte(source))) //nolint:gosec // as above
	byName := func(b rueidis.Builder) rueidis.Completed {
		return b.Evalsha().Sha1(sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	byText := func(b rueidis.Builder) rueidis.Completed {
		return b.Eval().Script(source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return func(ctx context.Context) (rueidis.RedisMessage, error) {
		message, err := q.replicate(ctx, byName)
		if reply, ok := rueidis.IsRedisErr(err); ok && reply.IsNoScript() {
			message, err = q.replicate(ctx, byText)
		}
		return message, err
	}
}

// replicate takes a connection for a script, of the node that has the queue's slot.
func (q *Queue) replicate(ctx context.Context, script func(rueidis.Builder) rueidis.Completed) (rueidis.RedisMessage, error) {
	conn, release := dedicate(ctx, q.client)
	if conn == nil {
		return rueidis.RedisMessage{}, context.Cause(ctx)
	}
	message, err := q.scriptAndWait(ctx, conn, release, false, script)
	// A client does not follow redirections of a connection of its user's.
	if node, asking := q.redirected(err); node != nil {
		conn, release := dedicate(ctx, node)
		if conn == nil {
			return rueidis.RedisMessage{}, context.Cause(ctx)
		}
		message, err = q.scriptAndWait(ctx, conn, release, asking, script)
	}
	if isRedirect(err) { // it passes, as soon as the client has heard of it
		err = fmt.Errorf("the slot moves: %s", err.Error())
	}
	return message, err
}

// scriptAndWait sends a script and WAIT together on a connection, and gives that back.
// Too few replicas are an error that passes.
func (q *Queue) scriptAndWait(ctx context.Context, conn rueidis.DedicatedClient, release func(), asking bool, script func(rueidis.Builder) rueidis.Completed) (rueidis.RedisMessage, error) {
	defer release()
	wanted := int64(q.config.SaveReplicas)
	wait := conn.B().Wait().Numreplicas(wanted).Timeout(replicaPatience.Milliseconds()).Build()
	commands := []rueidis.Completed{script(conn.B()), wait}
	if asking {
		commands = slices.Insert(commands, 0, conn.B().Asking().Build())
	}
	results := conn.DoMulti(ctx, commands...)
	if asking {
		results = results[1:]
	}
	message, err := results[0].ToMessage()
	if isBroken(err) {
		conn.Close()
	}
	if err != nil {
		return message, err
	}
	have, err := results[1].AsInt64()
	if err != nil {
		return message, fmt.Errorf("wait for replicas: %w", err)
	}
	if have < wanted {
		return message, fmt.Errorf("%d of %d replicas have it", have, wanted)
	}
	return message, nil
}

// redirected gives the node of a cluster that an error sends its caller to, if the
// client knows it, and whether to ask there for a slot that is on its way.
func (q *Queue) redirected(err error) (node rueidis.Client, asking bool) {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return nil, false
	}
	address, moved := reply.IsMoved()
	if !moved {
		if address, asking = reply.IsAsk(); !asking {
			return nil, false
		}
	}
	return q.client.Nodes()[address], asking
}
