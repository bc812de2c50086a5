package beequeue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// A flight is one lane of a worker's calls of turn.lua, outcomes in and jobs out,
// and the call that is under way in it.
type flight struct {
	lane    lane
	aloft   bool          // a call is under way
	batch   []ending      // the outcomes it carries
	results []turnOutcome // the same, as the script takes them
	want    int           // slots it may fill
	lease   time.Duration // what it makes of the lease, see prepareTurn
	began   time.Time
	call    turnCall
	reply   turnReply
	err     error
	refused pause                   // between calls that Redis refuses
	unread  pause                   // after records that could not be read
	conn    rueidis.DedicatedClient // the waiting lane's own, if it has one
	hangUp  func()
	pooled  bool // or it left one in the client's pool
}

// initFlights makes the worker's lanes. Their calls are numbered in one row, so that
// a number names a claim.
func (w *worker) initFlights() {
	var numbers uint64
	open := func(name string) *flight {
		f := &flight{lane: newLane(w.token, name)}
		f.lane.numbers = &numbers
		return f
	}
	w.turns = append(w.turns, open("turn0")) // which lua/turn.lua knows the worker by
	for i := 1; i < w.plan.lanes; i++ {
		w.turns = append(w.turns, open("turn"+strconv.Itoa(i)))
	}
	w.standing = open("wait")
}

// freeLane gives the first lane that has no call under way: standing turns want to know
// that the first of all is in use.
func (w *worker) freeLane() *flight {
	for _, f := range w.turns {
		if !f.aloft {
			return f
		}
	}
	return nil // the plan begins no turn then
}

// turn makes a call. It returns an error only if the worker has run out of time.
func (w *worker) turn(f *flight) error {
	w.load(f)
	if len(w.turns) == 1 {
		w.perform(f)
		return w.land(f)
	}
	w.flights.Go(func() {
		w.perform(f)
		w.landed <- f
	})
	return nil
}

// A turn takes at most this many outcomes and claims at most as many jobs, which
// keeps scripts short and within what Lua's unpack takes. It stops taking outcomes
// at turnBytes; lua/turn.lua has the like for claims.
const (
	turnMost  = 500
	turnBytes = 1 << 20
)

// leasePart says how old a lease may get, as a part of its length, before a lane
// renews it along with its other work. The heartbeat renews it besides.
const leasePart = 6

// load prepares the lane's next call.
func (w *worker) load(f *flight) {
	n, size := 0, 0
	for n < len(w.finishing) && n < turnMost && size < turnBytes {
		e := &w.finishing[n]
		size += len(e.call.text) + len(e.call.event)
		if e.call.what == turnPlain {
			size += len(e.run.record) // which the script reads and writes
		}
		n++
	}
	f.want = w.plan.claims()
	f.began, f.lease = time.Now(), -1
	if f.began.Sub(f.lane.renewed) > min(w.q.config.StallInterval/leasePart, renewal) {
		f.lease = w.q.config.StallInterval
	}
	f.aloft = true
	w.plan.beginTurn(n, f.want)
	if w.plan.lastTurn() {
		f.lease = 0
	}
	if n == len(w.finishing) {
		f.batch, w.finishing = w.finishing, f.batch[:0]
	} else {
		f.batch = append(f.batch[:0], w.finishing[:n]...)
		rest := copy(w.finishing, w.finishing[n:])
		clear(w.finishing[rest:])
		w.finishing = w.finishing[:rest]
	}
	f.results = f.results[:0]
	for i := range f.batch {
		if f.lease == 0 && f.batch[i].call.what == turnPlain {
			f.batch[i].call = f.batch[i].whole(w.q) // there must be nothing left to do without a lease
		}
		f.results = append(f.results, f.batch[i].call)
	}
	f.call = w.q.prepareTurn(&f.lane, w.token, f.lease, f.want, w.large, f.results)
}

// perform makes the call that is prepared.
func (w *worker) perform(f *flight) {
	notice := func(err error) { w.q.report(err, "record and claim jobs") }
	for {
		f.reply, f.err = w.q.turn(w.hard, &f.call, notice)
		if w.hard.Err() != nil || !errors.Is(f.err, ErrUncertain) {
			break
		}
		// It may have run: another number would not hear of what it claimed.
		f.call.reached = true
		notice(f.err)
		sleep(w.hard, f.refused.next())
	}
	if f.err == nil {
		f.refused = pause{}
		w.fetch(f)
	} else if w.hard.Err() == nil {
		// A refusal, which changed nothing: what is wrong may be put right.
		notice(f.err)
		sleep(w.hard, f.refused.next())
	}
}

// largeRecord is from what length on records do not pass through scripts, if jobs have
// such on the whole: it costs Redis some ten times as much as to read and write them by
// plain commands. The worker reads them when it has claimed the jobs, and sends them
// whole when they end.
const largeRecord = 4096

// fetch reads the records of the jobs that a sparing call has claimed.
func (w *worker) fetch(f *flight) {
	if !f.call.sparing || len(f.reply.jobs) == 0 {
		return
	}
	// The jobs are ours meanwhile; if it comes to nothing, they go back.
	if err := w.q.readRecords(w.hard, f.reply.jobs); err != nil {
		w.q.report(err, "read the records of %d jobs", len(f.reply.jobs))
		sleep(w.hard, f.unread.next())
		return
	}
	f.unread = pause{}
}

// weigh takes note of how large records are.
func (w *worker) weigh(jobs []claimed) {
	if len(jobs) == 0 {
		return
	}
	size := 0
	for i := range jobs {
		size += len(jobs[i].record)
	}
	w.large = size/len(jobs) >= largeRecord
}

// land deals with the reply. It returns an error only if the worker has run out of
// time.
func (w *worker) land(f *flight) error {
	w.noteLanding(f)
	clear(f.call.args) // of what they hold
	clear(f.results)
	if f.err != nil {
		w.finishAgain(f)
		if w.hard.Err() != nil {
			return w.crash(f.err)
		}
		return nil
	}
	if f.lease > 0 {
		f.lane.renewed = f.began
	}
	for i := range f.batch {
		w.conclude(&f.batch[i], f.reply.verdicts[i])
	}
	clear(f.batch)
	if len(w.news) > 0 {
		w.notices.line <- w.news
		w.news = nil
	}
	w.weigh(f.reply.jobs)
	for _, job := range f.reply.jobs {
		w.begin(job, f.reply.claim)
	}
	if len(f.reply.jobs) > 0 {
		runtime.Gosched() // handlers that take no time are done for the next call
	}
	w.digest(f)
	f.reply = turnReply{}
	return nil
}

// noteLanding takes note that a call is no longer under way.
func (w *worker) noteLanding(f *flight) {
	f.aloft = false
	if f == w.standing {
		w.plan.endBlocking()
	} else {
		w.plan.endTurn(f.want)
	}
}

// finishAgain puts the outcomes of a call that came to nothing into the next.
func (w *worker) finishAgain(f *flight) {
	w.finishing = append(w.finishing, f.batch...)
	w.plan.outcomes += len(f.batch)
	clear(f.batch)
}

// digest takes note of whether more jobs are waiting. A standing turn asks for one job
// alone, when there is one: that it leaves none is no news.
func (w *worker) digest(f *flight) {
	switch {
	case f.reply.more:
		w.plan.foundMore()
	case f.want > 0 && f != w.standing:
		w.plan.foundNone()
	}
}

// crash ends a worker that is out of time: its calls got no answer.
func (w *worker) crash(err error) error {
	for w.plan.inFlight() {
		if f := <-w.landed; f.err != nil {
			w.noteLanding(f)
			w.finishAgain(f)
		} else if err := w.land(f); err != nil {
			return err
		}
	}
	if len(w.finishing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: what became of jobs %s could not be recorded: %w", ErrUnfinished, names(w.finishing), err)
}

// conclude deals with the verdict on one outcome.
func (w *worker) conclude(e *ending, v verdict) {
	id := e.call.id
	if v == changed {
		e.call = e.whole(w.q)
		w.finish(*e)
		return
	}
	if e.run != nil {
		w.mu.Lock()
		if w.runs[id] == e.run {
			delete(w.runs, id)
		}
		w.mu.Unlock()
	}
	switch {
	case v == gone:
		w.q.report(fmt.Errorf("%w: it was removed while it ran", ErrOwnershipLost), "job %q", id)
	case v != recorded:
		w.q.report(fmt.Errorf("%w: it was taken back while it ran", ErrOwnershipLost), "job %q", id)
	case e.outcome != nil:
		w.news = append(w.news, notice{job: e.job, outcome: e.outcome})
	}
}

// putAside is how long a job waits that this worker cannot run yet because an
// earlier run of it has not returned. Another worker may take it then.
const putAside = time.Second

// begin starts the run of a claimed job. What cannot or must not run goes into
// the next call's outcomes.
func (w *worker) begin(c claimed, claim string) {
	back := turnOutcome{id: c.id, claim: claim, what: turnReturned}
	if c.bare { // the job was removed meanwhile, or Redis does not answer any more
		w.finish(ending{call: back})
		return
	}
	if w.here[c.id] != nil {
		back.delay = putAside
		w.finish(ending{call: back})
		return
	}
	r := &run{id: c.id, record: c.record, claim: claim}
	r.ctx, r.cancel = context.WithCancelCause(w.values)

	w.mu.Lock()
	if w.soft.Err() != nil {
		w.mu.Unlock()
		r.cancel(ErrClosed)
		w.finish(ending{call: back})
		return
	}
	w.runs[c.id] = r
	w.mu.Unlock()
	w.here[c.id] = r
	w.plan.running++
	w.start(r)
}
