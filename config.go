package beequeue

import (
	"fmt"
	"log/slog"
	"maps"
	"time"
)

// Config has the settings of a queue. The zero value of each field is its default.
type Config struct {
	// Prefix begins every key. Default "bq", as in Bee-Queue.
	Prefix string
	// PlainKeys uses Bee-Queue's key names without a hash tag, such as
	// `bq:push:waiting`, for fleets that have them already. They cannot work on a
	// cluster: New or Ready then returns ErrKeyLayout.
	PlainKeys bool

	// StallInterval is the time between two checks for jobs of lost workers. A worker
	// phones in for its jobs three times per interval. A check takes back the jobs that
	// nobody has phoned in for since the check before. Default 5 s; at least 100 ms. All
	// processes of a queue, Node's too, should have the same.
	//
	// A job of a worker that died is waiting again within two intervals and a second, if
	// another Process runs. Before a Process takes a job back, the job's worker has half
	// an interval more to phone in, or a second if that is less.
	StallInterval time.Duration
	// MaxStalls is the number of times a job may be taken back from a lost worker. After
	// that it fails instead of running again, so that a job that kills its workers
	// cannot go on for ever. Default 3; negative means no limit, as in Bee-Queue.
	MaxStalls int
	// ShutdownTimeout is how long handlers may run on after the context of Process has
	// ended, or after Close was called with a context that has no deadline. Then their
	// contexts are cancelled and their jobs handed back. Default 5 s.
	ShutdownTimeout time.Duration
	// TimeoutGrace is how long a handler may take to return after its job's Timeout has
	// cancelled its context. Then OnError gets ErrStuck, and the job is retried or failed
	// without waiting any longer. Default 5 s.
	TimeoutGrace time.Duration
	// CallTimeout bounds calls whose context has no deadline, such as Save while Redis is
	// away. Default 10 s.
	CallTimeout time.Duration

	// MaxData is the largest size of a job's data, in bytes of JSON. Beyond it, Save
	// returns ErrDataTooLarge. Default 0: only Redis's own limit of 512 MB a value.
	MaxData int
	// MaxID is the largest length of an id given to SetID, in bytes. Beyond it, Save
	// returns ErrIDTooLong. Default 0: no limit.
	MaxID int
	// MaxWaiting is the number of waiting jobs at which Save returns ErrQueueFull instead
	// of adding another. So producers slow down when workers fall behind. Delayed jobs do
	// not count. Default 0: no limit.
	MaxWaiting int

	// SaveReplicas is the number of replicas that must have a job before its Save returns
	// (Redis's WAIT). A failover to one of these replicas does not lose the job, which
	// asynchronous replication otherwise may. Default 0.
	//
	// A Save returns ErrUncertain if it does not learn of that many replicas in time. The
	// job is then stored on the master, or will be. Each call of a Save takes a
	// connection for itself.
	SaveReplicas int

	// RemoveOnSuccess removes the records of succeeded jobs. Wait then learns of a job's
	// end only if it was called before.
	RemoveOnSuccess bool
	// RemoveOnFailure removes the records of jobs that failed for good.
	RemoveOnFailure bool
	// NoEvents keeps this worker from publishing what becomes of its jobs. Wait in other
	// processes then finds out by reading the job's state, every 5 s.
	NoEvents bool

	// Backoffs are backoff strategies of your own, by the name that jobs use.
	// Bee-Queue's three cannot be replaced.
	Backoffs map[Strategy]BackoffFunc
	// ScanCount is the COUNT of the SSCAN commands that GetJobs sends. Default 100.
	ScanCount int
	// Logger gets errors while there is no OnError callback, at most one a second.
	// Default slog.Default().
	Logger *slog.Logger
}

// withDefaults returns the config with its zero fields filled in, or an error if a
// setting makes no sense.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Prefix, "bq")
	setDefault(&c.MaxStalls, 3)
	setDefault(&c.ScanCount, 100)
	if c.ScanCount < 0 {
		return c, fmt.Errorf("config: ScanCount: %d is negative", c.ScanCount)
	}
	for _, limit := range []struct {
		name  string
		value int
	}{{"MaxData", c.MaxData}, {"MaxID", c.MaxID}, {"MaxWaiting", c.MaxWaiting}, {"SaveReplicas", c.SaveReplicas}} {
		if limit.value < 0 {
			return c, fmt.Errorf("config: %s: %d is negative", limit.name, limit.value)
		}
	}
	for _, d := range []struct {
		name    string
		value   *time.Duration
		byzero  time.Duration
		atLeast time.Duration
	}{
		{"StallInterval", &c.StallInterval, 5 * time.Second, 100 * time.Millisecond},
		{"ShutdownTimeout", &c.ShutdownTimeout, 5 * time.Second, time.Millisecond},
		{"TimeoutGrace", &c.TimeoutGrace, 5 * time.Second, time.Millisecond},
		{"CallTimeout", &c.CallTimeout, 10 * time.Second, time.Millisecond},
	} {
		setDefault(d.value, d.byzero)
		if *d.value < d.atLeast {
			return c, fmt.Errorf("config: %s: %v is less than %v", d.name, *d.value, d.atLeast)
		}
	}
	for name, f := range c.Backoffs {
		switch {
		case name == "" || isBuiltIn(name):
			return c, fmt.Errorf("config: Backoffs: strategy %q is built in", name)
		case f == nil:
			return c, fmt.Errorf("config: Backoffs: strategy %q has no func", name)
		}
	}
	c.Backoffs = maps.Clone(c.Backoffs)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// setDefault sets a value that is zero.
func setDefault[T comparable](v *T, byZero T) {
	var zero T
	if *v == zero {
		*v = byZero
	}
}
