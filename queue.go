package beequeue

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/redis/rueidis"
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

// A Queue is one named queue in Redis. It is safe for use by several
// goroutines. Any number of processes may use the same queue.
type Queue struct {
	name    string
	config  Config
	client  rueidis.Client
	keys    keys
	scripts *scripts

	token     string // names this value's calls
	saves     saver
	control   lane // calls that change one job
	callbacks callbacks
	hub       hub

	// life ends when Close has done its work; everything the queue itself
	// started, rather than a call of the user's, ends with it.
	life    context.Context //nolint:containedctx // the queue owns goroutines that no call of the user's does
	endLife context.CancelFunc
	started sync.WaitGroup // the queue's own goroutines

	mu     sync.Mutex
	ready  bool
	closed chan struct{} // closed when Close begins
	worker *worker       // the Process or Drain under way
}

// New makes a queue. It sends nothing to Redis: Ready does, and the first call
// that has to. The client stays the caller's; one client serves many queues,
// and Close leaves it open. Dial makes a client with options that suit a queue.
//
// ErrKeyLayout comes back if the name cannot be part of a key, or if plain keys
// were asked for and the client is a cluster's.
func New(client rueidis.Client, name string, config Config) (*Queue, error) {
	if client == nil {
		return nil, fmt.Errorf("beequeue: new queue %q: client is nil", name)
	}
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("beequeue: new queue %q: %w", name, err)
	}
	k, err := layout{prefix: config.Prefix, name: name, plain: config.PlainKeys}.keys()
	if err == nil {
		err = k.checkMode(client)
	}
	if err != nil {
		return nil, fmt.Errorf("beequeue: new queue %q: %w", name, err)
	}
	q := &Queue{
		name:    name,
		config:  config,
		client:  client,
		keys:    k,
		scripts: newScripts(&k),
		token:   newToken(),
		closed:  make(chan struct{}),
	}
	q.life, q.endLife = context.WithCancel(context.Background())
	q.control = newLane(q.token, "control")
	q.saves.init(q)
	q.hub.init(q)
	return q, nil
}

// Name returns the name given to New.
func (q *Queue) Name() string { return q.name }

// KeyPrefix returns what all the queue's keys begin with, such as `bq:{push}:`.
func (q *Queue) KeyPrefix() string { return q.keys.base }

// Ready checks that Redis answers, is 6.2 or later, and can hold the queue's
// keys; the first time that it does, the OnReady callbacks run. It tries until
// ctx ends, or Config.CallTimeout has passed. ErrUnsupportedServer and
// ErrKeyLayout come back at once.
func (q *Queue) Ready(ctx context.Context) error {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	if err := q.check(ctx); err != nil {
		return q.fault(err, "ready")
	}
	return nil
}

func (q *Queue) check(ctx context.Context) error {
	if q.isClosed() {
		return ErrClosed
	}
	q.mu.Lock()
	was := q.ready
	q.mu.Unlock()
	if was {
		return nil
	}
	if err := q.checkServer(ctx); err != nil {
		return err
	}
	if _, err := q.counts(ctx); err != nil {
		return err
	}
	q.mu.Lock()
	was, q.ready = q.ready, true
	q.mu.Unlock()
	if !was {
		q.callbacks.fireReady(q)
	}
	return nil
}

// IsRunning reports whether Close has not been called yet, as Bee-Queue's
// isRunning does.
func (q *Queue) IsRunning() bool { return !q.isClosed() }

func (q *Queue) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// Close stops the queue: Process takes no more jobs, and handlers may finish
// until ctx's deadline or, if it has none, for Config.ShutdownTimeout. Then
// their contexts are cancelled with the cause ErrClosed, their jobs go back to
// waiting, and the error wraps ErrUnfinished. Saves under way are waited for
// likewise. When Close has returned, no goroutine and no connection of the
// queue is left, but for handlers that ignore their contexts, and a connection
// that the client is about to make, which is closed as it comes. The client stays
// open. Calling Close again waits for the first call.
func (q *Queue) Close(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(q.config.ShutdownTimeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	q.mu.Lock()
	if !q.isClosed() {
		close(q.closed)
	}
	w := q.worker
	q.mu.Unlock()

	stopped := make(chan error, 1)
	go func() { stopped <- q.stop(w, deadline) }()
	var err error
	select {
	case err = <-stopped:
	case <-ctx.Done():
		// The deadline is the end of the handlers' grace time too, and a ctx that
		// is cancelled asks for that now. Handing back jobs has a bound of its own.
		if w != nil {
			w.stop(time.Now())
		}
		q.saves.abandon()
		select {
		case err = <-stopped:
		case <-time.After(3 * flushTime):
			err = fmt.Errorf("%w: a callback or a handler does not return", ErrStuck)
		}
	}
	if err != nil {
		return q.fault(err, "close")
	}
	return nil
}

// stop waits for the worker and the saves, and then ends what is the queue's.
func (q *Queue) stop(w *worker, deadline time.Time) error {
	var err error
	if w != nil {
		w.stop(deadline)
		<-w.ended
		err = w.err
	}
	q.saves.finish(deadline)
	q.mu.Lock()
	q.endLife() // from here on, spawn starts nothing
	q.mu.Unlock()
	q.started.Wait()
	return err
}

// Counts is how many jobs are in each state. Bee-Queue calls it health.
type Counts struct {
	Waiting, Active, Delayed, Succeeded, Failed int64
	// NewestJob is the newest automatic id; zero if there was none.
	NewestJob int64
}

// Counts returns how many jobs are in each state, read in one step.
func (q *Queue) Counts(ctx context.Context) (Counts, error) {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	c, err := q.counts(ctx)
	if err != nil {
		return c, q.fault(err, "counts")
	}
	return c, nil
}

// Destroy deletes everything the queue has in Redis, and returns the number of
// keys deleted. Jobs that run meanwhile are not recorded: their workers report
// ErrOwnershipLost. Workers that go on, and Saves, make new keys: so stop the
// workers first, then Destroy, then Close.
func (q *Queue) Destroy(ctx context.Context) (int64, error) {
	if q.isClosed() {
		return 0, q.fault(ErrClosed, "destroy")
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	n, err := q.destroy(ctx)
	if err != nil {
		return n, q.fault(err, "destroy")
	}
	return n, nil
}

// spawn starts a goroutine of the queue's, which Close waits for. It reports false
// if the queue has ended.
func (q *Queue) spawn(f func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.life.Err() != nil {
		return false
	}
	q.started.Go(f)
	return true
}

// bound gives a call without a deadline Config.CallTimeout.
func (q *Queue) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, q.config.CallTimeout)
}

// fault wraps an error once, where it leaves the package.
func (q *Queue) fault(err error, format string, args ...any) error {
	return fmt.Errorf("beequeue: %s in queue %q: %w", fmt.Sprintf(format, args...), q.name, err)
}

// report sends an error that no call returns to OnError, or to the log.
func (q *Queue) report(err error, format string, args ...any) {
	q.callbacks.fireError(q, q.fault(err, format, args...))
}

func (q *Queue) knowsBackoff(s Strategy) bool {
	switch s {
	case Immediate, Fixed, Exponential:
		return true
	}
	return q.config.Backoffs[s] != nil
}
