package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// replicaPatience is how long one try waits for the replicas.
const replicaPatience = time.Second

// replicated returns a request that runs a script, and waits until Settings.SaveReplicas
// replicas have what it wrote. WAIT counts the writes of its own connection (Redis docs), so
// the two go together on a connection that nobody else uses.
func (s *Store) replicated(script *Script, keys, args []string) request {
	byName := func(b rueidis.Builder) rueidis.Completed {
		return b.Evalsha().Sha1(script.SHA).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	byText := func(b rueidis.Builder) rueidis.Completed {
		return b.Eval().Script(script.Source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return func(ctx context.Context) (rueidis.RedisMessage, error) {
		message, err := s.replicate(ctx, byName)
		if reply, ok := rueidis.IsRedisErr(err); ok && reply.IsNoScript() {
			message, err = s.replicate(ctx, byText)
		}
		return message, err
	}
}

// replicate takes a connection for a script, of the node that has the queue's slot.
func (s *Store) replicate(ctx context.Context, script func(rueidis.Builder) rueidis.Completed) (rueidis.RedisMessage, error) {
	conn, release := Dedicate(ctx, s.client)
	if conn == nil {
		return rueidis.RedisMessage{}, context.Cause(ctx)
	}
	message, err := s.scriptAndWait(ctx, conn, release, false, script)
	// A client does not follow redirections of a connection of its user's.
	if node, asking := s.redirected(err); node != nil {
		conn, release := Dedicate(ctx, node)
		if conn == nil {
			return rueidis.RedisMessage{}, context.Cause(ctx)
		}
		message, err = s.scriptAndWait(ctx, conn, release, asking, script)
	}
	if isRedirect(err) { // transient: the client will hear of it
		err = fmt.Errorf("the slot moves: %s", err.Error())
	}
	return message, err
}

// scriptAndWait sends a script and WAIT together on a connection, and releases that. Too
// few replicas are a transient error.
func (s *Store) scriptAndWait(ctx context.Context, conn rueidis.DedicatedClient, release func(), asking bool, script func(rueidis.Builder) rueidis.Completed) (rueidis.RedisMessage, error) {
	defer release()
	wanted := int64(s.settings.SaveReplicas)
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

// redirected returns the node of a cluster that an error sends its caller to, if the client
// knows it, and whether to ask there for a slot that is on its way.
func (s *Store) redirected(err error) (node rueidis.Client, asking bool) {
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
	return s.client.Nodes()[address], asking
}
