package beequeue

import (
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

// keys are the names of everything a queue has in Redis. All of them begin
// with base, which holds the queue's hash tag, so they lie in one slot and
// scripts may touch them together.
type keys struct {
	base string

	// Bee-Queue's; see its README, "Under the hood".
	id         string // string: counter of automatic ids
	jobs       string // hash: id -> record
	waiting    string // list: ids, next one at the right end
	active     string // list: ids, newest at the left end
	succeeded  string // set: ids
	failed     string // set: ids
	delayed    string // zset: id -> due time, Unix ms
	stalling   string // set: ids that have not phoned in since the last check
	stallBlock string // string: there while the last stall check is recent

	// Ours. Node's Queue#destroy leaves them.
	workers string // zset: worker token -> end of its lease, Unix ms
	owners  string // hash: id -> token and claim of the run that has it
	stalls  string // hash: id -> how often it was taken back from a lost worker
	calls   string // hash: caller -> its last call and the answer
	reasons string // hash: id -> why a record that cannot be read failed

	// Channels.
	events         string // JSON events
	earlierDelayed string // due time of a new head of delayed
}

// layout says how key names are made.
type layout struct {
	prefix, name string
	plain        bool // Node's names for a queue without a hash tag
}

// keys gives the names: `bq:{push}:waiting` by default, so that a queue keeps
// to one slot and queues spread over the cluster. Where prefix or name has a
// hash tag already, or for plain keys, they are exactly Node's:
// `<prefix>:<name>:waiting`.
func (l layout) keys() (keys, error) {
	base := l.prefix + ":" + l.name + ":"
	switch {
	case l.name == "":
		return keys{}, fmt.Errorf("%w: the queue's name is empty", ErrKeyLayout)
	case hashTag(base) != "" || l.plain:
	case strings.ContainsAny(base, "{}"):
		return keys{}, fmt.Errorf("%w: prefix %q and name %q have braces that are no hash tag; leave them out, or write the tag as {%s}",
			ErrKeyLayout, l.prefix, l.name, strings.NewReplacer("{", "", "}", "").Replace(l.name))
	default:
		base = l.prefix + ":{" + l.name + "}:"
	}
	return keys{
		base:           base,
		id:             base + "id",
		jobs:           base + "jobs",
		waiting:        base + "waiting",
		active:         base + "active",
		succeeded:      base + "succeeded",
		failed:         base + "failed",
		delayed:        base + "delayed",
		stalling:       base + "stalling",
		stallBlock:     base + "stallBlock",
		workers:        base + "workers",
		owners:         base + "owners",
		stalls:         base + "stalls",
		calls:          base + "calls",
		reasons:        base + "reasons",
		events:         base + "events",
		earlierDelayed: base + "earlierDelayed",
	}, nil
}

// state gives the key that holds the ids of a state.
func (k *keys) state(s State) (string, error) {
	switch s {
	case StateWaiting, StateActive, StateDelayed, StateSucceeded, StateFailed:
		return k.base + string(s), nil
	}
	return "", fmt.Errorf("unknown state %q", s)
}

// hashTag gives the part of a key that decides its slot, or "" if the whole
// key does (Redis Cluster specification, "Hash tags").
func hashTag(key string) string {
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

// checkMode refuses keys that a cluster client would panic on.
func (k *keys) checkMode(client rueidis.Client) error {
	if client.Mode() == rueidis.ClientModeCluster && hashTag(k.base) == "" {
		return fmt.Errorf("%w: plain keys (%sid, ...) lie in several slots of a cluster; leave Config.PlainKeys off, "+
			"and let Node processes join by naming their queue with braces: new Queue('{name}')", ErrKeyLayout, k.base)
	}
	return nil
}

// explain turns what a server says of keys in the wrong place into an error
// that says what to write instead, and gives a name to what users may test for.
func (k *keys) explain(err error) error {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return err
	}
	switch refusal(reply) {
	case "OOM":
		return fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	case "CROSSSLOT":
		return fmt.Errorf("%w: the server is a cluster and plain keys (%sid, ...) lie in several of its slots; leave Config.PlainKeys off, "+
			"and let Node processes join by naming their queue with braces: new Queue('{name}')", ErrKeyLayout, k.base)
	case "MOVED", "ASK":
		return fmt.Errorf("%w: the server is part of a cluster, but the client speaks to it alone; "+
			"make the client without ForceSingleClient (%s)", ErrKeyLayout, reply.Error())
	}
	return err
}
