package beequeue

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"time"
)

// An Event is something that happened to a job, as Job.Watch reports it.
type Event struct {
	// Name is "progress", "retrying", "succeeded" or "failed".
	Name string
	// Data is the progress or the result, as JSON. It is nil for the other events.
	Data json.RawMessage
	// Err is the handler's error, a *FailedError, if Name is "retrying" or "failed".
	Err error
}

// watchInterval is how often a watch reads the job's state when it has heard nothing,
// because events get lost, and some workers send none.
const watchInterval = 5 * time.Second

// watchPatience is how long a new watch waits before it reads the job's state, even if it
// has missed nothing since its job was saved. The job may have ended without an event.
const watchPatience = 200 * time.Millisecond

// Wait waits for the job to finish and returns its result. If the job failed for good, the
// error wraps a *FailedError. The job may finish before or after the call, and the
// connection may break meanwhile: the result is kept with the job, and read from there if
// its event was missed. The result is nil if the handler returned nil. It is also nil if
// the event was missed and a Node process ran the job, because Node keeps no results.
//
// The error wraps ErrNotFound if there is no such job. With RemoveOnSuccess or
// RemoveOnFailure a job leaves nothing behind when it finishes, and only a Wait that began
// before is sure to hear of it. To wait for every job, keep the records, and Remove each
// job after its Wait.
//
// Wait also returns when ctx ends, with ctx's cause, and at Close, with ErrClosed.
func (j *Job) Wait(ctx context.Context) (json.RawMessage, error) {
	return j.Watch(ctx, nil)
}

// Watch waits like Wait, and calls f with each event of the job that it hears meanwhile. f
// may be nil. Events are not kept, so those sent while nobody was subscribed are missed.
// The end of the job is the exception: f always gets it, as its last call, if it comes.
func (j *Job) Watch(ctx context.Context, f func(Event)) (json.RawMessage, error) {
	q := j.queue
	if j.ID == "" {
		return nil, q.wrap(errors.New("job is not saved"), "wait for a job")
	}
	e, err := q.watchJob(ctx, j.ID, j.saved, func(e event) {
		if f != nil {
			f(e.public())
		}
	})
	if err != nil {
		return nil, q.wrap(err, "wait for job %q", j.ID)
	}
	if f != nil {
		f(e.public())
	}
	if e.Name == eventSucceeded {
		return e.Data, nil
	}
	return nil, q.wrap(e.end, "wait for job %q", j.ID)
}

// public returns the event as users see it.
func (e event) public() Event {
	switch e.Name {
	case eventFailed, eventRetrying:
		err := e.end
		if err == nil {
			err = e.failure()
		}
		return Event{Name: e.Name, Err: err}
	default:
		return Event{Name: e.Name, Data: e.Data}
	}
}

// watchJob waits for the event that ended the job and returns it. It calls pass with the
// events before.
func (q *Queue) watchJob(ctx context.Context, id string, saved offset, pass func(event)) (event, error) {
	if q.isClosed() {
		return event{}, ErrClosed
	}
	if !q.subscriber.subscribed() {
		// If the job has finished already, no subscription is needed.
		e, err := q.readEnd(ctx, id)
		if e.Name != "" || err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return e, err
		}
	}
	w := q.subscriber.watch(id, saved)
	defer q.subscriber.unwatch(w)
	tick := time.NewTimer(watchPatience)
	defer tick.Stop()
	for {
		select {
		case e := <-w.events:
			pass(e)
			continue
		case e := <-w.end:
			if e.Name == eventFailed {
				// The event may be late, from a run before the job was retried by hand.
				now, err := q.readEnd(ctx, id)
				if err == nil && now.Name == "" {
					continue
				}
				if err == nil && now.Name != e.Name {
					e = now
				}
			}
			w.pass(pass)
			return e.withErr(), nil
		case <-w.look:
			tick.Reset(watchInterval)
		case <-tick.C:
			tick.Reset(watchInterval)
		case <-ctx.Done():
			return event{}, context.Cause(ctx)
		case <-q.life.Done():
			return event{}, ErrClosed
		}
		// Events may have been missed, so read the job's state. The event of its end says
		// more, if it comes too. It is all there is if the job was removed at its end.
		e, err := q.readEnd(ctx, id)
		if err == nil && e.Name == "" || ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			continue // the job has not ended, or Redis does not answer for now
		}
		patience := time.Duration(0)
		switch {
		case errors.Is(err, ErrNotFound):
			patience = 100 * time.Millisecond // perhaps the job was removed at its end
		case err == nil && e.unsure:
			patience = 25 * time.Millisecond // Node keeps no result with the job
		}
		heard, ok := w.heardEnd(ctx, patience)
		w.pass(pass)
		if ok && (err != nil || heard.Name == e.Name) {
			return heard.withErr(), nil
		}
		return e, err
	}
}

// watch is one call of Job.Watch. The subscriber fills its channels and never blocks.
type watch struct {
	id     string
	events chan event    // events of the job, all but its end
	end    chan event    // the event that ended the job
	look   chan struct{} // an event may have been missed: read the job's state
}

// deliver passes an event to the watch. If the watch lags behind, it is told to read the
// job's state instead.
func (w *watch) deliver(e event) {
	to := w.events
	if e.ended() {
		to = w.end
	}
	select {
	case to <- e:
	default:
		w.nudge()
	}
}

// nudge tells the watch to read the job's state.
func (w *watch) nudge() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// pass calls f with the events that have arrived.
func (w *watch) pass(f func(event)) {
	for {
		select {
		case e := <-w.events:
			f(e)
		default:
			return
		}
	}
}

// heardEnd returns the event that ended the job, if it arrives within the patience.
func (w *watch) heardEnd(ctx context.Context, patience time.Duration) (event, bool) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case e := <-w.end:
		return e, true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case e := <-w.end:
		return e, true
	default:
		return event{}, false
	}
}

// withErr returns an event that ended a job, with the error that its waiters get.
func (e event) withErr() event {
	if e.Name == eventFailed {
		e.end = e.failure()
	}
	return e
}

// readEnd reads from Redis how the job ended. The event has no name if it has not ended.
func (q *Queue) readEnd(ctx context.Context, id string) (event, error) {
	try, cancel := q.bound(ctx)
	defer cancel()
	// No Wait may outlast Close while Redis is away.
	defer context.AfterFunc(q.life, cancel)() //nolint:contextcheck // either of the two ends it
	found, err := q.store.Lookup(try, id)
	if err != nil && q.life.Err() != nil {
		err = ErrClosed
	}
	if err != nil || found.Ended == "" {
		return event{}, err
	}
	e := event{ID: id, Name: found.Ended}
	job, err := decodeJob(q, id, found.Record)
	switch {
	case found.Reason != "":
		e.end = &FailedError{ID: id, Message: (&RecordError{ID: id, Reason: found.Reason}).Error()}
	case err != nil:
		e.end = &FailedError{ID: id, Message: err.Error()}
	case State(found.Ended) == StateSucceeded:
		e.Data, e.unsure = job.Result, job.Result == nil && !job.read.NoResult
	default:
		failed := &FailedError{ID: id}
		if traces := job.Options.Stacktraces; len(traces) > 0 {
			failed.Message, failed.Stack = messageOf(traces[0]), traces[0]
		}
		e.end = failed
	}
	if e.end != nil {
		e.Name = eventFailed
	}
	return e, nil
}

// messageOf returns the message in an entry of a job's stacktraces. Node's stacks begin
// with "Error: message" and go on with lines that begin with "at". Go's have the message,
// an empty line, and the goroutine.
func messageOf(stack string) string {
	if message, _, found := strings.Cut(stack, "\n    at "); found {
		if kind, rest, ok := strings.Cut(message, ": "); ok && strings.HasSuffix(kind, "Error") && !strings.ContainsAny(kind, " \n") {
			return rest
		}
		return message
	}
	message, _, _ := strings.Cut(stack, "\n\ngoroutine ")
	return message
}

// endsKept is the number of job ends that are remembered for a Wait that begins after
// its job has ended. An end with more than endSizeMost bytes of data is remembered
// without its content, so that results cannot fill the memory.
const (
	endsKept    = 512
	endSizeMost = 4096
)

// offset is a position among the job ends heard; zero means unknown.
type offset struct{ session, heard uint64 }

// endRing remembers the last ends of jobs that were heard. A Save notes its offset, and
// a Wait for the same job learns from it whether any event since was missed. All
// methods but offset need the subscriber's lock.
type endRing struct {
	session atomic.Uint64 // number of the subscription to events; 0 while there is none
	heard   atomic.Uint64 // number of ends heard, over all sessions

	sessions uint64  // number of the last session
	ends     []event // the last endsKept of those heard
}

// beginSession notes that the queue's events are heard from now on.
func (r *endRing) beginSession() {
	r.sessions++
	r.session.Store(r.sessions)
}

// endSession notes that events may be missed from now on.
func (r *endRing) endSession() { r.session.Store(0) }

// offset returns the current position, for a job that is about to be saved. All events
// of the job come after it.
func (r *endRing) offset() offset {
	session := r.session.Load()
	if session == 0 {
		return offset{}
	}
	return offset{session, r.heard.Load()}
}

// rememberEnd keeps the event that ended a job.
func (r *endRing) rememberEnd(e event) {
	if r.ends == nil {
		r.ends = make([]event, endsKept)
	}
	if len(e.Data) > endSizeMost {
		e.Name, e.Data = "", nil
	}
	r.ends[r.heard.Load()%endsKept] = e
	r.heard.Add(1)
}

// replay delivers to a watch the ends of its job that were heard since an offset. It
// reports whether all events since then were heard and are complete.
func (r *endRing) replay(w *watch, from offset) bool {
	heard := r.heard.Load()
	if from.session == 0 || from.session != r.session.Load() || heard-from.heard > endsKept {
		return false
	}
	for i := from.heard; i < heard; i++ {
		if e := r.ends[i%endsKept]; e.ID == w.id {
			if e.Name == "" { // its data were too large to keep
				return false
			}
			w.deliver(e)
		}
	}
	return true
}
