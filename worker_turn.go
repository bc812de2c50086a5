package beequeue

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
)

// A turnLane is one lane of a worker's turns, which are calls of turn.lua: outcomes in,
// jobs out. It holds the call that is in flight.
type turnLane struct {
	lane     store.Lane
	inFlight bool
	batch    []runEnd        // the outcomes that the call carries
	results  []store.Outcome // the same, as the script takes them
	want     int             // slots that the call may fill
	lease    time.Duration   // what the call makes of the worker's lease, see store.Turn
	began    time.Time
	call     store.TurnCall
	reply    store.TurnReply
	err      error
	refused  store.Pause // between calls that Redis refuses
	unread   store.Pause // after records that could not be read
}

// initLanes makes the worker's lanes. They share one sequence of numbers for their
// calls, so that a number names a claim.
func (w *worker) initLanes() {
	var numbers uint64
	open := func(name string) *turnLane {
		return &turnLane{lane: store.NewLane(w.token, name, &numbers)}
	}
	for i := range w.plan.lanes {
		w.lanes = append(w.lanes, open("turn"+strconv.Itoa(i))) // internal/store/lua/turn.lua looks for turn0
	}
	w.blocking = open("wait")
}

// freeLane is the first lane without a call in flight. turn0 comes first, because a
// blocking call claims only for a worker that has used it.
func (w *worker) freeLane() *turnLane {
	for _, l := range w.lanes {
		if !l.inFlight {
			return l
		}
	}
	return nil // cannot be: the plan begins no turn then
}

// turn makes a turn: at once if the worker has one lane, or else in a goroutine. It
// returns an error only if the worker is out of time.
func (w *worker) turn(l *turnLane) error {
	w.fill(l)
	if len(w.lanes) == 1 {
		w.send(l)
		return w.receive(l)
	}
	w.callers.Go(func() {
		w.send(l)
		w.replies <- l
	})
	return nil
}

// turnBytes is how many bytes of outcomes a turn carries before it takes no further one.
// internal/store/lua/turn_claim.lua has a similar limit for the records of claimed jobs.
const turnBytes = 1 << 20

// leasePart is the part of a lease's length after which a turn renews the lease along
// with its other work. The heartbeat renews it as well.
const leasePart = 6

// fill prepares the lane's next turn.
func (w *worker) fill(l *turnLane) {
	n, size := 0, 0
	for n < len(w.outcomes) && n < turnMost && size < turnBytes {
		e := &w.outcomes[n]
		size += len(e.call.Payload) + len(e.call.Event)
		if e.call.Kind == store.EndPlain {
			size += len(e.run.record) // which the script reads and writes
		}
		n++
	}
	l.want = w.plan.claims()
	l.began, l.lease = time.Now(), -1
	if l.began.Sub(l.lane.Renewed) > min(w.q.config.StallInterval/leasePart, store.Renewal) {
		l.lease = w.q.config.StallInterval
	}
	l.inFlight = true
	w.plan.beginTurn(n, l.want)
	if w.plan.lastTurn() {
		l.lease = 0
	}
	if n == len(w.outcomes) {
		l.batch, w.outcomes = w.outcomes, l.batch[:0]
	} else {
		l.batch = append(l.batch[:0], w.outcomes[:n]...)
		rest := copy(w.outcomes, w.outcomes[n:])
		clear(w.outcomes[rest:])
		w.outcomes = w.outcomes[:rest]
	}
	l.results = l.results[:0]
	for i := range l.batch {
		if l.lease == 0 && l.batch[i].call.Kind == store.EndPlain {
			// A plain success may be refused and sent again, and then there is no lease.
			l.batch[i].call = l.batch[i].whole(w.q)
		}
		l.results = append(l.results, l.batch[i].call)
	}
	l.call = w.q.store.PrepareTurn(&l.lane, store.Turn{
		Token: w.token, Lease: l.lease, Want: l.want, OmitRecords: w.recordsLarge, Outcomes: l.results,
	})
	if l.want > 0 {
		w.beginClaim(l, l.began)
	}
}

// claimDue is a call that may claim jobs, and when its reply should have arrived.
type claimDue struct {
	name store.CallName
	due  time.Time
}

// beginClaim notes that the lane's call may claim jobs.
func (w *worker) beginClaim(l *turnLane, due time.Time) {
	w.mu.Lock()
	w.claims[l] = claimDue{l.call.Name(), due}
	w.mu.Unlock()
}

// endClaim notes that the lane's reply has been received, and its jobs are known.
func (w *worker) endClaim(l *turnLane) {
	w.mu.Lock()
	delete(w.claims, l)
	w.mu.Unlock()
}

// send makes the call that is prepared, until its reply arrives, Redis refuses it, or the
// worker is out of time.
func (w *worker) send(l *turnLane) {
	notice := func(err error) { w.q.report(err, "record and claim jobs") }
	for {
		l.reply, l.err = w.q.turn(w.callCtx, &l.call, notice)
		if w.callCtx.Err() != nil || !errors.Is(l.err, ErrUncertain) {
			break
		}
		// The call may have run. Under another number, it would not learn what it claimed.
		l.call.Reached = true
		notice(l.err)
		store.Sleep(w.callCtx, l.refused.Next())
	}
	if l.err == nil {
		l.refused = store.Pause{}
		w.fetchRecords(l)
	} else if w.callCtx.Err() == nil {
		// Redis refused the call and changed nothing. Somebody may put right what is wrong.
		notice(l.err)
		store.Sleep(w.callCtx, l.refused.Next())
	}
}

// fetchRecords reads the records of the jobs that a call has claimed without them. If it
// fails, the jobs go back: they are the worker's, but it cannot run them.
func (w *worker) fetchRecords(l *turnLane) {
	if !l.call.OmitRecords || len(l.reply.Jobs) == 0 {
		return
	}
	if err := w.q.store.ReadRecords(w.callCtx, l.reply.Jobs); err != nil {
		w.q.report(err, "read the records of %d jobs", len(l.reply.Jobs))
		store.Sleep(w.callCtx, l.unread.Next())
		return
	}
	l.unread = store.Pause{}
}

// receive takes the reply of a call. It returns an error only if the worker is out of
// time.
func (w *worker) receive(l *turnLane) error {
	w.endCall(l)
	l.call.Forget()
	clear(l.results)
	if l.err != nil {
		if l.want > 0 {
			w.endClaim(l)
		}
		w.requeueOutcomes(l)
		if w.callCtx.Err() != nil {
			return w.giveUpCalls(l.err)
		}
		return nil
	}
	if l.lease > 0 {
		l.lane.Renewed = l.began
	}
	for i := range l.batch {
		w.applyVerdict(&l.batch[i], l.reply.Verdicts[i])
	}
	clear(l.batch)
	if len(w.dueNotices) > 0 {
		w.notices.line <- w.dueNotices
		w.dueNotices = nil
	}
	w.noteSizes(l.reply.Jobs)
	for _, job := range l.reply.Jobs {
		w.startRun(job, l.reply.Claim)
	}
	if l.want > 0 {
		w.endClaim(l)
	}
	if len(l.reply.Jobs) > 0 {
		runtime.Gosched() // so that quick handlers return in time for the next turn
	}
	w.noteSupply(l)
	l.reply = store.TurnReply{}
	return nil
}

// endCall notes that the lane's call is no longer in flight.
func (w *worker) endCall(l *turnLane) {
	l.inFlight = false
	if l == w.blocking {
		w.plan.endBlocking()
	} else {
		w.plan.endTurn(l.want)
	}
}

// requeueOutcomes puts the outcomes of a call that failed into the next turn.
func (w *worker) requeueOutcomes(l *turnLane) {
	w.addOutcomes(l.batch...)
	clear(l.batch)
}

// applyVerdict acts on what turn.lua made of an outcome.
func (w *worker) applyVerdict(e *runEnd, v store.Verdict) {
	id := e.call.ID
	if v == store.Changed {
		e.call = e.whole(w.q)
		w.addOutcomes(*e)
		return
	}
	w.mu.Lock()
	if e.run == nil {
		if w.returning[id] == e.call.Claim {
			delete(w.returning, id)
		}
	} else if w.runs[id] == e.run {
		delete(w.runs, id)
	}
	w.mu.Unlock()
	switch {
	case v == store.Gone:
		w.q.report(fmt.Errorf("%w: it was removed while it ran", ErrOwnershipLost), "job %q", id)
	case v != store.Recorded:
		w.q.report(fmt.Errorf("%w: it was taken back while it ran", ErrOwnershipLost), "job %q", id)
	case e.outcome != nil:
		w.dueNotices = append(w.dueNotices, notice{job: e.job, outcome: e.outcome})
	}
}

// noteSizes notes whether the records of the jobs just claimed are large on average.
func (w *worker) noteSizes(jobs []store.Claimed) {
	if len(jobs) == 0 {
		return
	}
	size := 0
	for i := range jobs {
		size += len(jobs[i].Record)
	}
	w.recordsLarge = size/len(jobs) >= largeRecord
}

// noteSupply tells the plan whether a call left jobs waiting. A blocking call that left
// none says nothing new: it wanted one job only.
func (w *worker) noteSupply(l *turnLane) {
	switch {
	case l.reply.More:
		w.plan.foundMore()
	case l.want > 0 && l != w.blocking:
		w.plan.foundNone()
	}
}

// giveUpCalls ends a worker that is out of time. It receives the replies that still
// come, and names in its error the jobs whose outcomes got no reply; err is why.
func (w *worker) giveUpCalls(err error) error {
	for w.plan.inFlight() {
		if l := <-w.replies; l.err != nil {
			w.endCall(l)
			w.requeueOutcomes(l)
		} else if err := w.receive(l); err != nil {
			return err
		}
	}
	if len(w.outcomes) == 0 {
		return nil
	}
	return fmt.Errorf("%w: what became of jobs %s could not be recorded: %w", ErrUnfinished, listIDs(w.outcomes), err)
}

// block begins the blocking call, in a goroutine: see internal/store/blocking.go. The call
// claims one job, whatever slots are free. If the machine vanishes without a word, no more
// than that job is kept from other workers until the stall check.
func (w *worker) block() {
	l := w.blocking
	l.inFlight, l.want, l.began, l.lease = true, 1, time.Now(), w.q.config.StallInterval
	w.plan.beginBlocking()
	l.call = w.q.store.PrepareTurn(&l.lane, store.Turn{
		Token: w.token, Lease: l.lease, Want: -l.want, OmitRecords: w.recordsLarge,
	})
	w.beginClaim(l, l.began.Add(store.BlockTime))
	w.callers.Go(func() {
		w.blockForJob(l)
		w.replies <- l
	})
}

// blockForJob makes the blocking call. When the worker is to stop, it ends the call, and
// finds out what the call had claimed.
func (w *worker) blockForJob(l *turnLane) {
	b := w.q.store.TurnWhenJob(w.claimCtx, &w.blocker, &l.call)
	if !b.Sent {
		return // the worker stopped before anything was sent
	}
	if b.Turn == nil {
		l.reply, l.err = b.Reply, nil
		w.q.reportUnpublished(l.reply)
		w.fetchRecords(l)
	} else {
		if w.claimCtx.Err() != nil {
			l.call.ClaimNothing()
		}
		w.send(l)
	}
	switch {
	case b.Block == nil && l.err == nil:
		l.refused = store.Pause{}
	case b.Block == nil: // the turn was refused, which send has reported
	case w.claimCtx.Err() == nil:
		// A server that is out of memory, or denies the command, may still let jobs be
		// claimed. So the loop goes on, after a pause.
		w.q.report(b.Block, "wait for jobs")
		if len(l.reply.Jobs) == 0 {
			store.Sleep(w.claimCtx, l.refused.Next())
		}
	}
}
