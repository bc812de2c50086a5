package beequeue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/store"
)

// A Queue is one named queue in Redis. It is safe for concurrent use. Any number of
// processes may use the same queue.
type Queue struct {
	name   string
	config Config
	client rueidis.Client
	store  *store.Store

	token      string // names this value's calls
	saves      saver
	control    store.Lane // for calls that change one job
	callbacks  callbacks
	subscriber subscriber

	// life ends when Close has done its work. It bounds everything that the queue
	// started by itself, and not for a call of the user's.
	life    context.Context //nolint:containedctx // the queue owns goroutines that no call of the user's does
	endLife context.CancelFunc
	started sync.WaitGroup // the queue's own goroutines

	mu     sync.Mutex
	ready  bool
	closed chan struct{} // closed when Close begins
	worker *worker       // the Process or Drain under way
}

// New makes a queue. It sends nothing to Redis: Ready does, or the first call that has
// to. The client stays the caller's: it may serve many queues, and Close leaves it open.
// Dial makes a client with options that suit a queue.
//
// The error wraps ErrKeyLayout if the name cannot be part of a key, or if
// Config.PlainKeys is set and the client is a cluster's. New also returns an error if
// the client is nil, or a setting of config makes no sense.
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
		err = k.CheckMode(client)
	}
	if err != nil {
		return nil, fmt.Errorf("beequeue: new queue %q: %w", name, err)
	}
	q := &Queue{
		name:   name,
		config: config,
		client: client,
		token:  store.NewToken(),
		closed: make(chan struct{}),
	}
	q.store = store.New(client, k, store.Settings{
		Token:         q.token,
		StallInterval: config.StallInterval,
		MaxStalls:     config.MaxStalls,
		NoEvents:      config.NoEvents,
		SaveReplicas:  config.SaveReplicas,
		CallTimeout:   config.CallTimeout,
	})
	q.life, q.endLife = context.WithCancel(context.Background())
	q.control = store.NewLane(q.token, "control", nil)
	q.saves.init(q)
	q.subscriber.init(q)
	return q, nil
}

// Name returns the name given to New.
func (q *Queue) Name() string { return q.name }

// KeyPrefix returns the prefix of all keys of the queue, such as `bq:{push}:`.
func (q *Queue) KeyPrefix() string { return q.store.Keys().Base() }

// Ready checks that Redis answers, is version 6.2 or later, and can hold the queue's
// keys. The OnReady callbacks run the first time it succeeds. Ready tries until ctx ends
// or, if ctx has no deadline, for Config.CallTimeout. It returns ErrUnsupportedServer
// and ErrKeyLayout at once, and ErrClosed after Close.
func (q *Queue) Ready(ctx context.Context) error {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	if err := q.check(ctx); err != nil {
		return q.wrap(err, "ready")
	}
	return nil
}

// check does the work of Ready, once per queue value.
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
	if err := q.store.CheckServer(ctx); err != nil {
		return err
	}
	if _, err := q.store.Counts(ctx); err != nil {
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

// IsRunning reports whether Close has not been called yet: Bee-Queue's isRunning.
func (q *Queue) IsRunning() bool { return !q.isClosed() }

func (q *Queue) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// Close stops the queue. Process takes no more jobs, and handlers may finish until ctx's
// deadline or, if it has none, for Config.ShutdownTimeout. Then their contexts are
// cancelled with the cause ErrClosed, their jobs go back to waiting, and the error wraps
// ErrUnfinished. Saves under way have the same time to finish. The error wraps ErrStuck
// if Process's does, or if a callback does not return within 6 s more.
//
// When Close has returned, the queue has no goroutine and no connection left, with two
// exceptions: handlers and callbacks that do not return, and a connection that the client
// is about to make, which is closed as soon as it is there. The client stays open. Calling
// Close again waits for the first call.
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
		// The deadline also ends the handlers' grace period, and a cancelled ctx ends it
		// now. Handing back jobs has a bound of its own, and is waited for.
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
		return q.wrap(err, "close")
	}
	return nil
}

// stop waits for the worker and the saves, and then ends the queue's own goroutines.
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

// Destroy deletes all keys of the queue, and returns how many it deleted. The outcomes of
// jobs that run meanwhile are not recorded: their workers report ErrOwnershipLost.
// Workers that go on, and Saves, make new keys. So stop the workers first, then Destroy,
// then Close. After Close, Destroy returns ErrClosed.
func (q *Queue) Destroy(ctx context.Context) (int64, error) {
	if q.isClosed() {
		return 0, q.wrap(ErrClosed, "destroy")
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	n, err := q.store.Destroy(ctx)
	if err != nil {
		return n, q.wrap(err, "destroy")
	}
	return n, nil
}

// spawn starts a goroutine that the queue owns and Close waits for. It reports whether it
// did: after Close it does not.
func (q *Queue) spawn(f func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.life.Err() != nil {
		return false
	}
	q.started.Go(f)
	return true
}

// bound returns a context that ends after Config.CallTimeout if ctx has no deadline.
func (q *Queue) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, q.config.CallTimeout)
}

// wrap names the operation and the queue in an error. It is called once for an error,
// where the error leaves the package.
func (q *Queue) wrap(err error, format string, args ...any) error {
	return fmt.Errorf("beequeue: %s in queue %q: %w", fmt.Sprintf(format, args...), q.name, err)
}

// report passes an error that no call returns to OnError, or else to the log.
func (q *Queue) report(err error, format string, args ...any) {
	q.callbacks.fireError(q, q.wrap(err, format, args...))
}

// turn makes a turn until its reply arrives, and reports why its events could not be
// published, if they could not.
func (q *Queue) turn(ctx context.Context, call *store.TurnCall, notice func(error)) (store.TurnReply, error) {
	reply, err := q.store.Turn(ctx, call, notice)
	if err == nil {
		q.reportUnpublished(reply)
	}
	return reply, err
}

// reportUnpublished reports why a turn's events could not be published, if they could not.
func (q *Queue) reportUnpublished(reply store.TurnReply) {
	if reply.Unpublished != "" {
		q.report(errors.New(reply.Unpublished), "publish events")
	}
}
