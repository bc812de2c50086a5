package beequeue

// A plan says what a worker does next. It counts, and knows no job: the worker tells it
// what happened, and asks for the next step. It has no Redis, no goroutine and no clock.
// It belongs to one goroutine, the worker's loop.
type plan struct {
	size  int  // handlers at once
	lanes int  // turns that may be in flight at once
	drain bool // end when no job is waiting

	phase    phase
	supply   supply
	running  int  // slots that handlers take
	reserved int  // slots that calls in flight may fill
	outcomes int  // outcomes of runs that wait for a turn
	turns    int  // turns in flight
	overlap  bool // since no turn was in flight, two have been at the same time
	blocking bool // the blocking call is in flight
}

// A phase is how far a worker has come. It never goes back.
type phase byte

const (
	phaseWorking  phase = iota
	phaseStopping       // claims no more jobs, and lets its handlers finish
	phaseExpired        // the grace period is over: jobs of handlers that still run go back
)

// A supply is what a worker knows of the jobs that wait for it.
type supply byte

const (
	supplyPlenty    supply = iota // the last call left jobs waiting, or none has been made
	supplyDoubtful                // one of two turns at the same time found none
	supplyNone                    // a turn that was alone found none
	supplyNoneStill               // as supplyNone, and then one of two turns found none as well
)

// A step is what a worker does next.
type step byte

const (
	stepRest     step = iota // await news
	stepTurn                 // begin a turn in a free lane
	stepBlock                // begin the blocking call
	stepLook                 // see whether a job is waiting, or a delayed job is due
	stepHandBack             // return the jobs of handlers that still run, and end
	stepQuit                 // end: nothing is left to do
)

// turnLanes is how many turns a worker may have in flight. With two, Redis works on one
// while the jobs of the other run.
const turnLanes = 2

// overlapFrom is the least concurrency at which a worker has two lanes. Below it a turn
// is small, and two small turns cost Redis more than one large turn.
const overlapFrom = 8

// turnMost is the most outcomes that a turn carries, and the most jobs that it claims. It
// keeps scripts short, and within what Lua's unpack takes.
const turnMost = 500

func newPlan(size int, drain bool) plan {
	p := plan{size: size, lanes: 1, drain: drain}
	if size >= overlapFrom {
		p.lanes = turnLanes
	}
	return p
}

// next is the first step that is due.
func (p *plan) next() step {
	switch {
	case p.phase == phaseExpired:
		return stepHandBack
	case p.turnDue():
		return stepTurn
	case p.phase == phaseWorking && !p.drain && !p.hungry() && p.free() > 0 && !p.blocking:
		return stepBlock
	case !p.idle():
		return stepRest
	case p.phase == phaseStopping:
		return stepQuit
	case p.drain:
		return stepLook
	}
	return stepRest
}

// turnDue reports whether there is enough for a turn: outcomes to record, or slots to
// fill.
//
// A turn beside another one has to be worth its cost to Redis: half of the lane's share
// of the slots. It does not claim while the supply is doubtful, because both turns may
// then find nothing.
func (p *plan) turnDue() bool {
	if p.turns == p.lanes {
		return false
	}
	least, claim := 1, p.hungry()
	if p.turns > 0 {
		least = max(1, p.size/(2*turnLanes))
		claim = p.supply == supplyPlenty
	}
	return p.outcomes >= least || claim && p.phase == phaseWorking && p.free() >= least
}

// hungry reports whether a job may be waiting.
func (p *plan) hungry() bool { return p.supply == supplyPlenty || p.supply == supplyDoubtful }

// free is how many slots no handler takes and no call in flight may fill.
func (p *plan) free() int { return p.size - p.running - p.reserved }

// inFlight reports whether a call is in flight.
func (p *plan) inFlight() bool { return p.turns > 0 || p.blocking }

// idle reports whether no handler runs, no outcome waits, and no call is in flight.
func (p *plan) idle() bool { return p.running == 0 && p.outcomes == 0 && !p.inFlight() }

// claims is how many jobs the next turn claims at most: the free slots, but no more than
// its lane's share of all, so that the lanes take turns.
func (p *plan) claims() int {
	if p.phase != phaseWorking {
		return 0
	}
	return min(p.free(), (p.size+p.lanes-1)/p.lanes, turnMost)
}

// stop moves on to phaseStopping.
func (p *plan) stop() { p.phase = max(p.phase, phaseStopping) }

// expire moves on to phaseExpired.
func (p *plan) expire() { p.phase = phaseExpired }

// beginTurn counts a turn that carries outcomes and may fill slots.
func (p *plan) beginTurn(outcomes, slots int) {
	p.overlap = p.turns > 0
	p.turns++
	p.outcomes -= outcomes
	p.reserved += slots
}

// endTurn counts the end of a turn that could fill slots.
func (p *plan) endTurn(slots int) {
	p.turns--
	p.reserved -= slots
}

// lastTurn reports whether the turn that has just begun leaves the worker nothing to do.
// Such a turn ends the worker's lease.
func (p *plan) lastTurn() bool {
	return p.phase != phaseWorking && p.turns == 1 && !p.blocking && p.outcomes == 0 &&
		(p.running == 0 || p.phase == phaseExpired)
}

// beginBlocking counts the blocking call, which may fill one slot.
func (p *plan) beginBlocking() {
	p.blocking = true
	p.reserved++
}

// endBlocking counts the end of the blocking call.
func (p *plan) endBlocking() {
	p.blocking = false
	p.reserved--
}

// foundMore notes that a call left jobs waiting.
func (p *plan) foundMore() { p.supply = supplyPlenty }

// foundNone notes that the turn which has just ended, and could fill a slot, left no job
// waiting. Only a turn that was alone settles it. Of two turns, the one that Redis ran
// first may be the last to be received, and the other may have put a job back.
func (p *plan) foundNone() {
	switch {
	case !p.overlap:
		p.supply = supplyNone
	case p.hungry():
		p.supply = supplyDoubtful
	default:
		p.supply = supplyNoneStill
	}
}

// looked notes whether stepLook found a job.
func (p *plan) looked(found bool) {
	switch {
	case !found:
	case p.supply == supplyNoneStill:
		p.supply = supplyDoubtful
	default:
		p.supply = supplyPlenty
	}
}
