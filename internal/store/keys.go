package store

// A Key is one of the things that a queue has in Redis: a key, or a channel.
type Key int

// The keys of a queue. keyTable says what each is.
const (
	ID Key = iota
	Jobs
	Waiting
	Active
	Succeeded
	Failed
	Delayed
	Stalling
	StallBlock
	Workers
	Owners
	Stalls
	Calls
	Reasons
	Events
	EarlierDelayed
	keyCount
)

// A Kind is a type of Redis's, or a channel.
type Kind string

// The kinds of keys.
const (
	String    Kind = "string"
	Hash      Kind = "hash"
	List      Kind = "list"
	Set       Kind = "set"
	SortedSet Kind = "zset"
	Channel   Kind = "channel"
)

// keyTable is everything a queue has in Redis. Scripts take their keys from it by
// name, Destroy deletes what is in it, and tests go through it.
var keyTable = [keyCount]struct { //nolint:gochecknoglobals // a table that does not change
	name string
	kind Kind
	ours bool // Bee-Queue does not know it, and Node's Queue#destroy leaves it
	what string
}{
	// Bee-Queue's; see its README, "Under the hood".
	ID:         {"id", String, false, "counter of automatic ids"},
	Jobs:       {"jobs", Hash, false, "id -> record"},
	Waiting:    {"waiting", List, false, "ids, the next at the right end"},
	Active:     {"active", List, false, "ids, the newest at the left end"},
	Succeeded:  {"succeeded", Set, false, "ids"},
	Failed:     {"failed", Set, false, "ids"},
	Delayed:    {"delayed", SortedSet, false, "id -> due time, Unix ms"},
	Stalling:   {"stalling", Set, false, "ids that were active at the last stall check, less those phoned in for since"},
	StallBlock: {"stallBlock", String, false, "there while the last stall check is less than an interval ago"},

	Workers: {"workers", SortedSet, true, "worker's token -> end of its lease, Unix ms"},
	Owners:  {"owners", Hash, true, "id -> token and claim of the run that has it"},
	Stalls:  {"stalls", Hash, true, "id -> how often it was taken back from a lost worker"},
	Calls:   {"calls", Hash, true, "lane -> its last call and the answer"},
	Reasons: {"reasons", Hash, true, "id -> why a record that cannot be read failed"},

	Events:         {"events", Channel, false, "what becomes of jobs, JSON"},
	EarlierDelayed: {"earlierDelayed", Channel, false, "due time of a new head of delayed"},
}

// keyNamed returns the key of a name, as scripts write it.
func keyNamed(name string) (Key, bool) {
	for k := range keyTable {
		if keyTable[k].name == name {
			return Key(k), true
		}
	}
	return 0, false
}

// Keys are the names of everything that one queue has in Redis.
type Keys struct {
	base  string
	names [keyCount]string
}

// NewKeys returns the names that begin with base, such as `bq:{push}:`. Its hash tag, if
// it has one, puts all of them in one slot of a cluster.
func NewKeys(base string) *Keys {
	k := &Keys{base: base}
	for i := range keyTable {
		k.names[i] = base + keyTable[i].name
	}
	return k
}

// Base returns what all names begin with.
func (k *Keys) Base() string { return k.base }

// Name returns the whole name of a key or channel.
func (k *Keys) Name(key Key) string { return k.names[key] }

// Stored returns the names of all keys, without the channels.
func (k *Keys) Stored() []string {
	names := make([]string, 0, keyCount)
	for i := range keyTable {
		if keyTable[i].kind != Channel {
			names = append(names, k.names[i])
		}
	}
	return names
}
