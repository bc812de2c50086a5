package beequeue

import (
	"fmt"
	"log/slog"
	"maps"
	"time"
)

// Config has the settings of a queue. The zero value is the default of each.
type Config struct {
	// Prefix begins every key; default "bq", as in Bee-Queue.
	Prefix string
	// PlainKeys uses Bee-Queue's key names without a hash tag, such as
	// `bq:push:waiting`, for fleets that have them already. They cannot work on
	// a cluster: New or Ready then return ErrKeyLayout.
	PlainKeys bool

	// StallInterval is the length of a worker's lease on its jobs, which it
	// renews three times an interval, and the time between two checks for jobs
	// of lost workers. A job of a worker that died is waiting again within two
	// intervals and a second, if another worker is there: a worker that is silent
	// at a check has half an interval more, or a second at most, to phone in.
	// Default 5 s; at least 100 ms. Processes that work on one queue, Node's too,
	// should have the same.
	StallInterval time.Duration
	// MaxStalls is how often a job may be taken back from a lost worker before
	// it is failed instead of run again, so that a job that kills its workers
	// cannot go on for ever. Default 3; negative is no limit, as in Bee-Queue.
	MaxStalls int
	// ShutdownTimeout is how long Process lets handlers finish when its context
	// has ended, and Close where its context has no deadline. Then their
	// contexts are cancelled and their jobs handed back. Default 5 s.
	ShutdownTimeout time.Duration
	// TimeoutGrace is how long a handler may take to return after its job's
	// Timeout has cancelled its context, before OnError gets ErrStuck and the
	// job is retried or failed without waiting any longer. Default 5 s.
	TimeoutGrace time.Duration
	// CallTimeout bounds calls whose context has no deadline, such as Save
	// while Redis is away. Default 10 s.
	CallTimeout time.Duration

	// MaxData is how many bytes of JSON a job's data may have; Save returns
	// ErrDataTooLarge beyond. Default 0, no limit but Redis's own (512 MB a value).
	MaxData int
	// MaxID is how many bytes an id given to SetID may have; Save returns
	// ErrIDTooLong beyond. Default 0, no limit.
	MaxID int
	// MaxWaiting is how many jobs may be waiting for Save to add another; it
	// returns ErrQueueFull beyond, so that producers slow down when workers fall
	// behind. Jobs that are delayed do not count. Default 0, no limit.
	MaxWaiting int

	// SaveReplicas is how many replicas must have a job before its Save returns
	// (Redis's WAIT): then a failover to one of these does not lose it, which
	// asynchronous replication may otherwise do. A Save that does not learn of so
	// many in time returns ErrUncertain; the job is stored on the master then, or
	// will be. Each call of a Save takes a connection for itself. Default 0.
	SaveReplicas int

	// RemoveOnSuccess removes the records of succeeded jobs. Wait then learns
	// of a job's end only if it was waiting already.
	RemoveOnSuccess bool
	// RemoveOnFailure removes the records of jobs that failed for good.
	RemoveOnFailure bool
	// NoEvents keeps this worker from publishing what becomes of its jobs. Wait
	// in other processes then learns of it by looking, every 5 s.
	NoEvents bool

	// Backoffs are backoff strategies of your own, by the name that jobs use.
	// Bee-Queue's three cannot be replaced.
	Backoffs map[Strategy]BackoffFunc
	// ScanCount is the COUNT of the SSCANs of GetJobs; default 100.
	ScanCount int
	// Logger gets the errors that no OnError callback listens to, at most one a
	// second; default slog.Default().
	Logger *slog.Logger
}

// withDefaults fills in what is zero and refuses what makes no sense.
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
		case name == "" || name == Immediate || name == Fixed || name == Exponential:
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

func setDefault[T comparable](v *T, byZero T) {
	var zero T
	if *v == zero {
		*v = byZero
	}
}
