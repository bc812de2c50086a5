package store

import (
	"time"

	"github.com/redis/rueidis"
)

// Settings are what a queue's calls depend on.
type Settings struct {
	Token         string        // names the queue value that calls
	StallInterval time.Duration // between two stall checks
	MaxStalls     int           // how often a job may be taken back; negative: no limit
	NoEvents      bool          // turns publish no plain successes
	SaveReplicas  int           // replicas that must have a job before its Save returns
	CallTimeout   time.Duration // bounds reads whose context has no deadline
}

// A Store makes the calls of one queue. It is safe for use by several goroutines.
type Store struct {
	client   rueidis.Client
	keys     *Keys
	settings Settings
	scripts  *scripts

	saveKeys, turnKeys, removeKeys, retryKeys []string
	heartbeatKeys, sweepKeys, raiseKeys       []string
	auditKeys, lookupKeys, countsKeys         []string
}

// New returns the store of the queue whose keys these are. It sends nothing to Redis.
func New(client rueidis.Client, keys *Keys, settings Settings) *Store {
	s := allScripts()
	return &Store{
		client: client, keys: keys, settings: settings, scripts: s,
		saveKeys: keys.keysOf(s.save), turnKeys: keys.keysOf(s.turn),
		removeKeys: keys.keysOf(s.remove), retryKeys: keys.keysOf(s.retry),
		heartbeatKeys: keys.keysOf(s.heartbeat), sweepKeys: keys.keysOf(s.sweep), raiseKeys: keys.keysOf(s.raise),
		auditKeys: keys.keysOf(s.audit), lookupKeys: keys.keysOf(s.lookup), countsKeys: keys.keysOf(s.counts),
	}
}

// Keys returns the names of the queue's keys.
func (s *Store) Keys() *Keys { return s.keys }
