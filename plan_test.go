package beequeue

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The plan decides as the rules did that it replaces, at each step of many random lives.
// Each life has a seed, so a failure can be repeated.
func TestPlan(t *testing.T) {
	t.Parallel()
	const lives = 5_000
	seen := make(map[step]int)
	supplies := make(map[supply]int)
	steps := 0
	for seed := range uint64(lives) {
		l := newLife(t, seed)
		for range 200 {
			steps++
			s := l.live()
			seen[s]++
			supplies[l.plan.supply]++
			if s == stepQuit || s == stepHandBack {
				break
			}
		}
	}
	t.Logf("%d steps of %d lives: %v, supplies %v", steps, lives, seen, supplies)
	for s := stepRest; s <= stepQuit; s++ {
		require.Greater(t, seen[s], lives/20, "step %d", s)
	}
	for s := supplyPlenty; s <= supplyNoneStill; s++ {
		require.Greater(t, supplies[s], lives/20, "supply %d", s)
	}
}

// A life is a plan and the old rules, to which the same things happen.
type life struct {
	t        *testing.T
	seed     uint64
	rand     *rand.Rand
	plan     plan
	old      *oldRules
	busy     int        // how often something happens, in percent
	scarcity int        // one call in so many leaves jobs waiting
	turns    []lifeTurn // of each lane
	block    bool       // the blocking call is in flight
}

// A lifeTurn is the call of one lane.
type lifeTurn struct {
	inFlight        bool
	outcomes, slots int
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1))}
	sizes := []int{1, 2, 3, 7, 8, 9, 16, 17, 40, 1200, 3000}
	size, drain := sizes[l.rand.IntN(len(sizes))], l.rand.IntN(3) == 0
	weight := 100
	if l.rand.IntN(10) == 0 {
		weight = turnBytes / 3
	}
	l.plan = newPlan(size, drain)
	l.old = newOldRules(size, weight, drain)
	l.turns = make([]lifeTurn, l.plan.lanes)
	l.busy = 5 + l.rand.IntN(95)
	l.scarcity = 2 + 8*l.rand.IntN(2)
	return l
}

// live has up to four things happen, takes one step, and returns it.
func (l *life) live() step {
	for range 4 {
		if l.rand.IntN(100) < l.busy {
			l.happen()
		}
	}
	want, got := l.old.decide(), l.plan.next()
	l.agree(want == got, "step %d, by the old rules %d", got, want)
	switch got {
	case stepTurn:
		l.beginTurn()
	case stepBlock:
		l.block = true
		l.plan.beginBlocking()
		l.old.beginBlocking()
	case stepLook:
		found := l.rand.IntN(4) > 0
		l.plan.looked(found)
		l.old.looked(found)
		if !found {
			return stepQuit
		}
	case stepHandBack:
		l.handBack()
	case stepRest:
		l.agree(!l.plan.idle(), "it rests for ever")
		l.happen()
	case stepQuit:
	}
	return got
}

// agree fails the test unless ok. The error is formatted only then, because the test agrees
// millions of times.
func (l *life) agree(ok bool, format string, args ...any) {
	if !ok {
		l.t.Helper()
		l.t.Fatalf("life %d: %s: %+v", l.seed, fmt.Sprintf(format, args...), l.plan)
	}
}

// happen has one thing happen.
func (l *life) happen() {
	switch n := l.rand.IntN(100); {
	case n < 40: // handlers return
		for range 1 + l.rand.IntN(1+l.plan.running) {
			l.handlerReturns()
		}
	case n < 45: // a handler's time and its grace period are over
		if l.plan.running > 0 {
			l.addOutcomes(1)
		}
	case n < 80:
		if lane := l.rand.IntN(len(l.turns)); l.turns[lane].inFlight {
			l.endTurn(lane)
		}
	case n < 98:
		if l.block {
			l.endBlocking()
		}
	case n < 99:
		if l.rand.IntN(5) == 0 {
			l.plan.stop()
			l.old.stopping = true
		}
	default:
		if l.plan.phase == phaseStopping {
			l.plan.expire()
			l.old.expired = true
		}
	}
}

func (l *life) handlerReturns() {
	if l.plan.running == 0 {
		return
	}
	l.plan.running--
	l.old.running--
	if l.rand.IntN(10) > 0 { // else the job was lost, or given up before
		l.addOutcomes(1)
	}
}

func (l *life) addOutcomes(n int) {
	l.plan.outcomes += n
	l.old.waitingOutcomes += n
}

func (l *life) beginTurn() {
	claims := l.plan.claims()
	lane, outcomes, slots, last := l.old.beginTurn()
	l.agree(slots == claims, "%d claims, by the old rules %d", claims, slots)
	l.agree(!l.turns[lane].inFlight, "lane %d is in flight", lane)
	l.plan.beginTurn(outcomes, slots)
	l.agree(last == l.plan.lastTurn(), "the last turn, by the old rules %t", last)
	l.turns[lane] = lifeTurn{true, outcomes, slots}
}

func (l *life) endTurn(lane int) {
	f := l.turns[lane]
	l.turns[lane] = lifeTurn{}
	l.plan.endTurn(f.slots)
	l.old.endTurn(lane)
	if l.rand.IntN(20) == 0 { // refused
		l.addOutcomes(f.outcomes)
		return
	}
	if f.outcomes > 0 && l.rand.IntN(10) == 0 { // records that have changed
		l.addOutcomes(1 + l.rand.IntN(f.outcomes))
	}
	jobs := f.slots
	if l.rand.IntN(l.scarcity) > 0 {
		jobs = l.rand.IntN(f.slots + 1)
	}
	if l.scarcity > 2 && l.rand.IntN(2) == 0 {
		jobs = 0
	}
	l.startRuns(jobs)
	more := l.rand.IntN(l.scarcity) == 0
	if more {
		l.plan.foundMore()
	} else if f.slots > 0 {
		l.plan.foundNone()
	}
	l.old.noteSupply(lane, more)
}

func (l *life) endBlocking() {
	l.block = false
	l.plan.endBlocking()
	l.old.endBlocking()
	if l.rand.IntN(20) == 0 { // refused
		return
	}
	l.startRuns(l.rand.IntN(2))
	more := l.rand.IntN(l.scarcity) == 0
	if more {
		l.plan.foundMore()
	}
	l.old.noteBlockingSupply(more)
}

// startRuns takes jobs that were claimed.
func (l *life) startRuns(jobs int) {
	for range jobs {
		if l.plan.phase != phaseWorking || l.rand.IntN(20) == 0 { // it goes back
			l.addOutcomes(1)
			continue
		}
		l.plan.running++
		l.old.running++
	}
}

// handBack ends a life as the worker does when the grace period is over.
func (l *life) handBack() {
	for lane := range l.turns {
		if l.turns[lane].inFlight {
			l.endTurn(lane)
		}
	}
	if l.block {
		l.endBlocking()
	}
	l.addOutcomes(l.plan.running)
	for l.plan.outcomes > 0 {
		l.beginTurn()
		l.endTurn(0)
	}
}

// oldRules are how the worker decided before it had a plan: by booleans, counts, and a flag
// for each call. They share only constants with the plan.
type oldRules struct {
	size, running, reserved, waitingOutcomes int
	drain                                    bool
	hungry                                   bool // a job may be waiting
	sated                                    bool // one of two turns found none
	stopping, expired                        bool
	weight                                   int // bytes of each outcome
	turns                                    []oldTurn
	blocking                                 oldTurn
}

// An oldTurn is a call. It is shared if another turn was in flight at the same time.
type oldTurn struct {
	inFlight, shared bool
	want             int
}

func newOldRules(size, weight int, drain bool) *oldRules {
	o := &oldRules{size: size, weight: weight, drain: drain, hungry: true, turns: make([]oldTurn, 1)}
	if size >= overlapFrom {
		o.turns = make([]oldTurn, turnLanes)
	}
	return o
}

// decide is the step that the worker's loop took.
func (o *oldRules) decide() step {
	idle := o.running == 0 && o.waitingOutcomes == 0 && !o.anyInFlight()
	switch {
	case o.expired:
		o.stopping = true
		return stepHandBack
	case o.nextTurn() >= 0:
		return stepTurn
	case !o.drain && !o.stopping && !o.hungry && o.free() > 0 && !o.blocking.inFlight:
		return stepBlock
	case idle && o.stopping:
		return stepQuit
	case idle && o.drain:
		return stepLook
	case o.mayClaim(1) && !o.anyInFlight():
		panic("the loop would spin")
	}
	return stepRest
}

func (o *oldRules) free() int { return o.size - o.running - o.reserved }

func (o *oldRules) mayClaim(least int) bool { return o.hungry && !o.stopping && o.free() >= least }

// nextTurn is the lane for another turn, or -1 if none is due.
func (o *oldRules) nextTurn() int {
	lane, least, alone := -1, 1, true
	for i, t := range o.turns {
		if t.inFlight {
			least, alone = max(1, o.size/(2*turnLanes)), false
		} else if lane < 0 {
			lane = i
		}
	}
	if o.waitingOutcomes >= least || o.mayClaim(least) && (alone || !o.sated) {
		return lane
	}
	return -1
}

func (o *oldRules) anyInFlight() bool {
	for _, t := range o.turns {
		if t.inFlight {
			return true
		}
	}
	return o.blocking.inFlight
}

// beginTurn fills a turn, and tells whether it is the worker's last, which ends the lease.
func (o *oldRules) beginTurn() (lane, outcomes, want int, last bool) {
	if lane = o.nextTurn(); lane < 0 {
		lane = 0 // of handBack
	}
	size := 0
	for outcomes < o.waitingOutcomes && outcomes < turnMost && size < turnBytes {
		size += o.weight
		outcomes++
	}
	if !o.stopping {
		share := (o.size + len(o.turns) - 1) / len(o.turns)
		want = min(o.free(), share, turnMost)
	}
	alone := !o.blocking.inFlight
	o.turns[lane] = oldTurn{inFlight: true, want: want}
	for i := range o.turns {
		if i != lane && o.turns[i].inFlight {
			o.turns[lane].shared, o.turns[i].shared, alone = true, true, false
		}
	}
	last = o.stopping && alone && outcomes == o.waitingOutcomes && (o.running == 0 || o.expired)
	o.reserved += want
	o.waitingOutcomes -= outcomes
	return lane, outcomes, want, last
}

func (o *oldRules) endTurn(lane int) {
	o.turns[lane].inFlight = false
	o.reserved -= o.turns[lane].want
}

// noteSupply notes whether a turn left jobs waiting.
func (o *oldRules) noteSupply(lane int, more bool) {
	switch turn := o.turns[lane]; {
	case more:
		o.hungry, o.sated = true, false
	case turn.want == 0:
	case turn.shared:
		o.sated = true
	default:
		o.hungry, o.sated = false, false
	}
}

func (o *oldRules) beginBlocking() {
	o.blocking = oldTurn{inFlight: true, want: 1}
	o.reserved++
}

func (o *oldRules) endBlocking() {
	o.blocking.inFlight = false
	o.reserved--
}

func (o *oldRules) noteBlockingSupply(more bool) {
	if more {
		o.hungry, o.sated = true, false
	}
}

func (o *oldRules) looked(found bool) { o.hungry = found }
