package beequeue

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// A worker is one Process or Drain. Its loop is one goroutine, which owns the slots and
// the calls: whatever starts or ends a run goes through it. So outcomes that arrive
// while calls are in flight go together in the next call.
type worker struct {
	q       *Queue
	handler Handler
	token   string // names the worker in Redis
	notices notices

	// The loop's alone.
	plan         plan            // what to do next
	lanes        []*turnLane     // of turns
	blocking     *turnLane       // of the blocking call
	blocker      store.Blocker   // makes the blocking calls
	unreturned   map[string]*run // handlers that have not returned, by job id
	outcomes     []runEnd        // for the next turn; plan.outcomes is their number
	dueNotices   []notice        // of outcomes that are recorded
	recordsLarge bool            // the last jobs had large records, see largeRecord

	runEnds chan runEnd    // from handlers
	replies chan *turnLane // calls that have returned
	callers sync.WaitGroup // goroutines that make calls

	mu         sync.Mutex
	runs       map[string]*run        // jobs that the worker owns, by id
	returning  map[string]string      // claims of jobs that go back without a run, by id
	claims     map[*turnLane]claimDue // calls in flight that may claim jobs
	deadline   time.Time              // of the grace period, once it is known
	graceTimer *time.Timer            // ends the grace period

	baseCtx   context.Context    //nolint:containedctx // what handlers' contexts are made from
	claimCtx  context.Context    //nolint:containedctx // ends when the worker is to take no more jobs
	endClaims context.CancelFunc // ends claimCtx
	callCtx   context.Context    //nolint:containedctx // ends the calls of a worker that is out of time
	endCalls  context.CancelFunc // ends callCtx
	expired   chan struct{}      // closed when the grace period is over

	nextRun    chan *run    // to idle runners
	idle       atomic.Int32 // idle runners: goroutines that have run a handler and await another
	idleAtMost int32
	handlers   sync.WaitGroup

	looked chan bool     // the worker has looked at the gate; true if it soon opens. For the heartbeat.
	ended  chan struct{} // closed when Process has all but returned
	err    error         // what the loop returned, once ended is closed
}

// newWorker makes a worker, and starts nothing.
func newWorker(ctx context.Context, q *Queue, concurrency int, handler Handler, drain bool) *worker {
	w := &worker{
		q:          q,
		handler:    handler,
		token:      store.NewWorkerToken(concurrency),
		plan:       newPlan(concurrency, drain),
		unreturned: make(map[string]*run),
		runEnds:    make(chan runEnd, 2*concurrency),
		replies:    make(chan *turnLane, turnLanes+1),
		runs:       make(map[string]*run),
		returning:  make(map[string]string),
		claims:     make(map[*turnLane]claimDue),
		looked:     make(chan bool, 1),
		expired:    make(chan struct{}),
		nextRun:    make(chan *run),
		idleAtMost: int32(min(concurrency, mostIdle)),
		ended:      make(chan struct{}),
	}
	w.initLanes()
	w.claimCtx, w.endClaims = context.WithCancel(ctx)
	w.baseCtx = context.WithoutCancel(ctx)
	w.callCtx, w.endCalls = context.WithCancel(w.baseCtx)
	return w
}

// run is the life of the worker. The contexts of its calls and handlers outlive ctx by
// the grace period; stop and endGrace end them.
func (w *worker) run(ctx context.Context) error { //nolint:contextcheck // as said above
	defer w.endCalls()
	defer w.endClaims()
	defer context.AfterFunc(ctx, func() { w.stop(time.Now().Add(w.q.config.ShutdownTimeout)) })()
	if err := w.becomeReady(); err != nil { //nolint:contextcheck // its context is the worker's
		return err
	}

	w.notices.start(w.q)
	var helpers sync.WaitGroup
	beatCtx, endBeat := context.WithCancel(w.callCtx)
	helpers.Go(func() { w.beat(beatCtx) })
	drain := w.plan.drain
	helpers.Go(func() { w.followChecks(beatCtx, drain) })
	if !drain {
		helpers.Go(func() { w.raiseDelayed(w.claimCtx) })
	}

	err := w.loop() //nolint:contextcheck // its context is the worker's

	w.endClaims()
	endBeat()
	helpers.Wait()
	w.callers.Wait()
	w.q.store.CloseBlocker(w.callCtx, &w.blocker) //nolint:contextcheck // its context is the worker's
	if stuck := w.awaitHandlers(); err == nil {
		err = stuck
	}
	w.notices.finish()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.graceTimer != nil {
		w.graceTimer.Stop()
	}
	return err
}

// becomeReady waits until Redis answers. It returns nil if Redis did, or if the worker
// was stopped first; ErrKeyLayout and ErrUnsupportedServer come back at once.
func (w *worker) becomeReady() error {
	var wait store.Pause
	for w.claimCtx.Err() == nil {
		ctx, cancel := context.WithTimeout(w.claimCtx, store.AttemptTimeout)
		err := w.q.check(ctx)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrKeyLayout), errors.Is(err, ErrUnsupportedServer):
			return err
		}
		if w.claimCtx.Err() == nil {
			w.q.report(err, "start processing")
			store.Sleep(w.claimCtx, wait.Next())
		}
	}
	return nil
}

// flushTime is how long a worker may take to hand jobs back when its grace period is
// over, and its handlers to return when their contexts have ended.
const flushTime = 2 * time.Second

// loop takes the plan's steps until the worker has ended.
func (w *worker) loop() error {
	for {
		if err := w.collect(); err != nil {
			return err
		}
		if w.claimCtx.Err() != nil {
			w.plan.stop()
		}
		if isDone(w.expired) {
			w.plan.expire()
		}
		var err error
		switch w.plan.next() {
		case stepTurn:
			err = w.turn(w.freeLane())
		case stepBlock:
			w.block()
		case stepLook:
			if found, err := w.look(); err != nil || !found {
				return err
			}
		case stepRest:
			err = w.rest()
		case stepHandBack:
			return w.handBack()
		case stepQuit:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// collect takes the news that is there, without waiting for any.
func (w *worker) collect() error {
	for {
		select {
		case e := <-w.runEnds:
			w.noteEnd(e)
			continue
		default:
		}
		select {
		case l := <-w.replies:
			if err := w.receive(l); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// rest waits for news.
func (w *worker) rest() error {
	var stopped <-chan struct{}
	if w.plan.phase == phaseWorking {
		stopped = w.claimCtx.Done()
	}
	select {
	case e := <-w.runEnds:
		w.noteEnd(e)
	case l := <-w.replies:
		return w.receive(l)
	case <-stopped:
	case <-w.expired:
	}
	return nil
}

// look reports whether a job is waiting, once due delayed jobs are. One script does
// both: two looks would miss a job that another worker moves in between.
func (w *worker) look() (found bool, err error) {
	reply, err := w.q.store.Raise(w.claimCtx)
	if err != nil {
		if w.claimCtx.Err() != nil { // stopped meanwhile
			err = nil
		}
		return false, err
	}
	if reply.Raised > 0 {
		w.notices.add(func() { w.q.callbacks.fireRaised(w.q, reply.Raised) })
	}
	w.plan.looked(reply.Waiting > 0)
	return reply.Waiting > 0, nil
}

// noteEnd takes one piece of news of a run.
func (w *worker) noteEnd(e runEnd) {
	if e.free {
		w.plan.running--
		if w.unreturned[e.run.id] == e.run {
			delete(w.unreturned, e.run.id)
		}
	}
	if e.outcome != nil || e.call.Kind == store.EndUnreadable {
		e.run.noted = true
		w.addOutcomes(e)
	}
}

// addOutcomes puts outcomes into the next turn.
func (w *worker) addOutcomes(ends ...runEnd) {
	w.outcomes = append(w.outcomes, ends...)
	w.plan.outcomes += len(ends)
}

// isDone reports whether a channel is closed.
func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
