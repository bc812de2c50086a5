package beequeue

import (
	"fmt"
	"strings"

	"github.com/gobeequeue/beequeue/internal/store"
)

// layout is how the names of a queue's keys are made.
type layout struct {
	prefix, name string
	plain        bool // Node's names, for a queue without a hash tag
}

// keys returns the names of the queue's keys: `bq:{push}:waiting` by default, so that one
// queue keeps to one slot of a cluster, and queues spread over the cluster. If the prefix
// or the name has a hash tag already, or for plain keys, they are exactly Node's:
// `<prefix>:<name>:waiting`. The error wraps ErrKeyLayout.
func (l layout) keys() (*store.Keys, error) {
	base := l.prefix + ":" + l.name + ":"
	switch {
	case l.name == "":
		return nil, fmt.Errorf("%w: the queue's name is empty", ErrKeyLayout)
	case store.HashTag(base) != "" || l.plain:
	case strings.ContainsAny(base, "{}"):
		return nil, fmt.Errorf("%w: prefix %q and name %q have braces that are no hash tag; leave them out, or write the tag as {%s}",
			ErrKeyLayout, l.prefix, l.name, strings.NewReplacer("{", "", "}", "").Replace(l.name))
	default:
		base = l.prefix + ":{" + l.name + "}:"
	}
	return store.NewKeys(base), nil
}
