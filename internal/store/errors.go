package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/rueidis"
)

// Errors that the root package hands to users as they are; it documents them.
var (
	ErrNotFound          = errors.New("job not found")
	ErrNotFailed         = errors.New("job is not in failed")
	ErrOutOfMemory       = errors.New("redis is out of memory")
	ErrUncertain         = errors.New("outcome unknown: the change may or may not have been made")
	ErrKeyLayout         = errors.New("key layout does not fit the server")
	ErrUnsupportedServer = errors.New("server is not supported")
)

// transient reports whether an error is worth a retry. Any other is the server's
// refusal.
func transient(err error) bool {
	if rueidis.IsRedisNil(err) {
		return false // an answer; IsRedisErr does not count it
	}
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return true
	}
	switch refusal(reply) {
	case "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED", "NOREPLICAS":
		return true
	}
	return false
}

// refusal returns the first word of what a server says, which names the kind of error.
// Before Redis 7, a script's refused command puts that word behind "ERR Error running
// script (call to f_...): @user_script:1: @user_script: 1: -".
func refusal(reply *rueidis.RedisError) string {
	text := reply.Error()
	if strings.HasPrefix(text, "Error running script") { // the client leaves out the ERR
		if _, inner, found := strings.Cut(text, ": -"); found {
			text = inner
		}
	}
	word, _, _ := strings.Cut(text, " ")
	return word
}

// neverReached reports whether Redis certainly did not run the command.
func neverReached(err error) bool {
	if _, ok := rueidis.IsRedisErr(err); ok {
		return true // a refusal
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isBroken reports whether an error is of the connection.
func isBroken(err error) bool {
	_, reply := rueidis.IsRedisErr(err)
	return err != nil && !reply && !rueidis.IsRedisNil(err)
}

// isRedirect reports whether a node of a cluster sends its caller to another.
func isRedirect(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	_, moved := reply.IsMoved()
	_, ask := reply.IsAsk()
	return moved || ask
}

// gaveUp returns the error of a call that got no reply before ctx ended.
func gaveUp(ctx context.Context, last error, reached bool) error {
	cause := context.Cause(ctx)
	if cause == nil { // the client is closed
		cause, last = last, errors.New("given up")
	} else if errors.Is(last, cause) || errors.Is(last, context.DeadlineExceeded) {
		last = errors.New("no reply")
	}
	if reached {
		return fmt.Errorf("%w: %w (%w)", ErrUncertain, cause, last)
	}
	return fmt.Errorf("redis was not reached: %w (%w)", cause, last)
}

// plainKeysAdvice is what to do about plain keys on a cluster.
const plainKeysAdvice = "leave Config.PlainKeys off, " +
	"and let Node processes join by naming their queue with braces: new Queue('{name}')"

// explain turns what a server says of keys in the wrong place into an error that says
// what to write instead. It gives a name to what users may test for.
func (k *Keys) explain(err error) error {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return err
	}
	switch refusal(reply) {
	case "OOM":
		return fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	case "CROSSSLOT":
		return fmt.Errorf("%w: the server is a cluster and plain keys (%sid, ...) lie in several of its slots; "+plainKeysAdvice, ErrKeyLayout, k.base)
	case "MOVED", "ASK":
		return fmt.Errorf("%w: the server is part of a cluster, but the client speaks to it alone; "+
			"make the client without ForceSingleClient (%s)", ErrKeyLayout, reply.Error())
	}
	return err
}

// CheckMode refuses keys that a cluster's client would panic on: those that share no
// hash tag.
func (k *Keys) CheckMode(client rueidis.Client) error {
	if client.Mode() == rueidis.ClientModeCluster && HashTag(k.base) == "" {
		return fmt.Errorf("%w: plain keys (%sid, ...) lie in several slots of a cluster; "+plainKeysAdvice, ErrKeyLayout, k.base)
	}
	return nil
}

// HashTag returns the part of a key that decides its slot, or "" if the whole key does
// (Redis Cluster specification, "Hash tags").
func HashTag(key string) string {
	_, rest, found := strings.Cut(key, "{")
	if !found {
		return ""
	}
	tag, _, found := strings.Cut(rest, "}")
	if !found {
		return ""
	}
	return tag
}
