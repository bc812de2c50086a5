package beequeue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Handler does a job's work. What it returns is marshalled to JSON and kept as
// the job's result; an error fails the run, and so does a panic. The context
// ends when the job's Timeout has passed (context.Cause: ErrTimeout), when the
// job was taken from this worker or removed (ErrOwnershipLost), and when the
// worker stops and its grace time is over (ErrClosed); return soon then. It has
// the values, but not the end, of the context given to Process.
//
// A handler that knows better when to try again, from a Retry-After header say,
// may call job.Backoff before it returns its error.
//
// A job may be run more than once, if its worker dies or stalls: make handlers
// idempotent.
type Handler func(ctx context.Context, job *Job) (any, error)

// Process takes jobs from the queue and runs up to concurrency handlers at once.
// It also takes back the jobs of lost workers and moves delayed jobs to waiting
// as they come due.
//
// Process blocks. It goes on through restarts and failovers of Redis; errors go
// to OnError. When ctx ends, or at Close, it takes no more jobs, lets the
// handlers finish for at most Config.ShutdownTimeout, and returns nil. Jobs that
// are unfinished by then are handed back to waiting, and the error wraps
// ErrUnfinished. Errors at once: ErrBusy, ErrClosed, ErrUnsupportedServer,
// ErrKeyLayout.
func (q *Queue) Process(ctx context.Context, concurrency int, handler Handler) error {
	return q.work(ctx, concurrency, handler, false)
}

// Drain works like Process, but returns as soon as no job is waiting and none of
// its own is running. Delayed jobs that are due are run, others left. It suits
// batch programs and tests. It makes no stall checks: where no Process runs beside it,
// CheckStalled takes back the jobs of programs that died.
func (q *Queue) Drain(ctx context.Context, concurrency int, handler Handler) error {
	return q.work(ctx, concurrency, handler, true)
}

// maxConcurrency bounds the handlers of one worker.
const maxConcurrency = 100_000

func (q *Queue) work(ctx context.Context, concurrency int, handler Handler, drain bool) error {
	switch {
	case concurrency < 1 || concurrency > maxConcurrency:
		return q.wrap(fmt.Errorf("concurrency %d is not between 1 and %d", concurrency, maxConcurrency), "process")
	case handler == nil:
		return q.wrap(errors.New("handler is nil"), "process")
	}
	w := newWorker(ctx, q, concurrency, handler, drain)
	if err := q.enlist(w); err != nil {
		return q.wrap(err, "process")
	}
	w.err = w.run(ctx)
	q.mu.Lock()
	q.worker = nil
	q.mu.Unlock()
	close(w.ended)
	if w.err != nil {
		return q.wrap(w.err, "process")
	}
	return nil
}

// enlist makes w the queue's worker.
func (q *Queue) enlist(w *worker) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.isClosed():
		return ErrClosed
	case q.worker != nil:
		return ErrBusy
	}
	q.worker = w
	return nil
}

// A worker is one Process. Its loop is one goroutine, which owns the slots and
// the calls: whatever ends a run or starts one goes through it, so outcomes that
// come while calls are under way go together in the next.
type worker struct {
	q       *Queue
	handler Handler
	token   string
	notices notices

	// Of the loop alone.
	plan      plan            // what to do next
	here      map[string]*run // handlers that have not returned, by job id
	large     bool            // records are, on the whole
	finishing []ending        // outcomes for the next call
	news      []notice        // callbacks that are due
	turns     []*flight       // the lanes of turns
	standing  *flight         // the lane of the turn that waits for jobs

	ends    chan ending    // from handlers
	landed  chan *flight   // turns that have their replies
	flights sync.WaitGroup // goroutines that make calls

	mu       sync.Mutex
	runs     map[string]*run // jobs this worker owns, by id
	deadline time.Time       // of the grace time, once it is known
	cut      *time.Timer     // ends the grace time

	values  context.Context    //nolint:containedctx // what handlers' contexts are made from
	over    chan struct{}      // closed when the grace time has ended
	soft    context.Context    //nolint:containedctx // ends when no more jobs are to be taken
	endSoft context.CancelFunc // from Close
	hard    context.Context    //nolint:containedctx // ends the calls of a worker out of time
	endHard context.CancelFunc

	next     chan *run    // to goroutines that have run a handler
	idlers   atomic.Int32 // of these, how many there are
	keep     int32        // and how many there may be
	handlers sync.WaitGroup
	ended    chan struct{}
	err      error // what the loop returned, once ended is closed
}

func newWorker(ctx context.Context, q *Queue, concurrency int, handler Handler, drain bool) *worker {
	w := &worker{
		q:       q,
		handler: handler,
		plan:    newPlan(concurrency, drain),
		token:   newWorkerToken(concurrency),
		here:    make(map[string]*run),
		ends:    make(chan ending, 2*concurrency),
		landed:  make(chan *flight, turnLanes+1),
		next:    make(chan *run),
		keep:    int32(min(concurrency, mostIdle)),
		runs:    make(map[string]*run),
		over:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	w.initFlights()
	w.soft, w.endSoft = context.WithCancel(ctx)
	w.values = context.WithoutCancel(ctx)
	w.hard, w.endHard = context.WithCancel(w.values)
	return w
}

// run is the life of the worker. The contexts of its calls and handlers outlive
// ctx by the grace time; stop and endGrace end them.
func (w *worker) run(ctx context.Context) error { //nolint:contextcheck // as said above
	defer w.endHard()
	defer w.endSoft()
	defer context.AfterFunc(ctx, func() { w.stop(time.Now().Add(w.q.config.ShutdownTimeout)) })()
	if err := w.becomeReady(); err != nil { //nolint:contextcheck // its context is the worker's
		return err
	}

	w.notices.start(w.q)
	var helpers sync.WaitGroup
	beating, endBeat := context.WithCancel(w.hard)
	helpers.Go(func() { w.beat(beating) })
	if !w.plan.drain {
		helpers.Go(func() { w.sweepStalled(w.soft) })
		helpers.Go(func() { w.raiseDelayed(w.soft) })
	}

	err := w.loop() //nolint:contextcheck // its context is the worker's

	w.endSoft()
	endBeat()
	helpers.Wait()
	w.flights.Wait()
	w.standing.disconnect()
	if w.standing.pooled {
		w.q.closePooled(w.hard) //nolint:contextcheck // its context is the worker's
	}
	if late := w.awaitHandlers(); err == nil {
		err = late
	}
	w.notices.finish()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut != nil {
		w.cut.Stop()
	}
	return err
}

// becomeReady waits until Redis answers. It returns nil when it did, or when the
// worker was stopped before.
func (w *worker) becomeReady() error {
	var wait pause
	for w.soft.Err() == nil {
		ctx, cancel := context.WithTimeout(w.soft, attemptTimeout)
		err := w.q.check(ctx)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrKeyLayout), errors.Is(err, ErrUnsupportedServer):
			return err
		}
		if w.soft.Err() == nil {
			w.q.report(err, "start processing")
			sleep(w.soft, wait.next())
		}
	}
	return nil
}

// loop claims jobs and records outcomes until the worker is to leave and has
// nothing left to do.
func (w *worker) loop() error {
	for {
		if err := w.collect(); err != nil {
			return err
		}
		if w.soft.Err() != nil {
			w.plan.stop()
		}
		if isDone(w.over) {
			w.plan.expire()
		}
		var err error
		switch w.plan.next() {
		case stepTurn:
			err = w.turn(w.freeLane())
		case stepBlock:
			w.wait()
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

// rest awaits news.
func (w *worker) rest() error {
	var leave <-chan struct{}
	if w.plan.phase == phaseWorking {
		leave = w.soft.Done()
	}
	select {
	case e := <-w.ends:
		w.note(e)
	case f := <-w.landed:
		return w.land(f)
	case <-leave:
	case <-w.over:
	}
	return nil
}

// look tells whether a job is waiting, or a delayed job is due. Both are looked at in
// one step: a job that another worker has just moved from there to here is in neither
// of two looks.
func (w *worker) look() (found bool, err error) {
	reply, err := w.q.raise(w.soft)
	if err != nil {
		if w.soft.Err() != nil { // stopped meanwhile
			err = nil
		}
		return false, err
	}
	if reply.raised > 0 {
		w.notices.add(func() { w.q.callbacks.fireRaised(w.q, reply.raised) })
	}
	w.plan.looked(reply.waiting > 0)
	return reply.waiting > 0, nil
}

// collect takes what news there is.
func (w *worker) collect() error {
	for {
		select {
		case e := <-w.ends:
			w.note(e)
			continue
		default:
		}
		select {
		case f := <-w.landed:
			if err := w.land(f); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// note takes one piece of news.
func (w *worker) note(e ending) {
	if e.free {
		w.plan.running--
		if w.here[e.run.id] == e.run {
			delete(w.here, e.run.id)
		}
	}
	if e.outcome != nil || e.call.what == turnUnreadable {
		e.run.noted = true
		w.finish(e)
	}
}

// finish puts an outcome into the next call.
func (w *worker) finish(e ending) {
	w.finishing = append(w.finishing, e)
	w.plan.outcomes++
}
