package beequeue

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The plan decides as the flags did that it replaces, at each step of many random lives.
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

// A life is a worker's plan and its flags, to which the same things happen.
type life struct {
	t        *testing.T
	seed     uint64
	rand     *rand.Rand
	plan     plan
	flags    *flags
	busy     int          // how often something happens, in percent
	scarcity int          // one call in so many leaves jobs waiting
	turns    []flyingTurn // of each lane
	block    bool         // the blocking call is in flight
}

type flyingTurn struct {
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
	l.flags = newFlags(size, weight, drain)
	l.turns = make([]flyingTurn, l.plan.lanes)
	l.busy = 5 + l.rand.IntN(95)
	l.scarcity = 2 + 8*l.rand.IntN(2)
	return l
}

// live has some things happen, and takes one step.
func (l *life) live() step {
	for range 4 {
		if l.rand.IntN(100) < l.busy {
			l.happen()
		}
	}
	want, got := l.flags.decide(), l.plan.next()
	l.agree(want == got, "step %d, by the flags %d", got, want)
	switch got {
	case stepTurn:
		l.beginTurn()
	case stepBlock:
		l.block = true
		l.plan.beginBlocking()
		l.flags.beginBlocking()
	case stepLook:
		found := l.rand.IntN(4) > 0
		l.plan.looked(found)
		l.flags.looked(found)
		if !found {
			return stepQuit
		}
	case stepHandBack:
		l.handBack()
	case stepRest:
		l.agree(!l.plan.idle(), "it rests for ever")
		l.happen()
	}
	return got
}

func (l *life) agree(ok bool, format string, args ...any) {
	if !ok { // looked at first, because the test does so some millions of times
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
	case n < 45: // a handler's time and its grace are over
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
			l.flags.leaving = true
		}
	default:
		if l.plan.phase == phaseStopping {
			l.plan.expire()
			l.flags.over = true
		}
	}
}

func (l *life) handlerReturns() {
	if l.plan.running == 0 {
		return
	}
	l.plan.running--
	l.flags.busy--
	if l.rand.IntN(10) > 0 { // else the job was lost, or given up before
		l.addOutcomes(1)
	}
}

func (l *life) addOutcomes(n int) {
	l.plan.outcomes += n
	l.flags.finishing += n
}

func (l *life) beginTurn() {
	claims := l.plan.claims()
	lane, outcomes, slots, last := l.flags.beginTurn()
	l.agree(slots == claims, "%d claims, by the flags %d", claims, slots)
	l.agree(!l.turns[lane].inFlight, "lane %d is in flight", lane)
	l.plan.beginTurn(outcomes, slots)
	l.agree(last == l.plan.lastTurn(), "the last turn, by the flags %t", last)
	l.turns[lane] = flyingTurn{true, outcomes, slots}
}

func (l *life) endTurn(lane int) {
	f := l.turns[lane]
	l.turns[lane] = flyingTurn{}
	l.plan.endTurn(f.slots)
	l.flags.endTurn(lane)
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
	l.runs(jobs)
	more := l.rand.IntN(l.scarcity) == 0
	if more {
		l.plan.foundMore()
	} else if f.slots > 0 {
		l.plan.foundNone()
	}
	l.flags.digest(lane, more)
}

func (l *life) endBlocking() {
	l.block = false
	l.plan.endBlocking()
	l.flags.endBlocking()
	if l.rand.IntN(20) == 0 { // refused
		return
	}
	l.runs(l.rand.IntN(2))
	more := l.rand.IntN(l.scarcity) == 0
	if more {
		l.plan.foundMore()
	}
	l.flags.digestBlocking(more)
}

// runs takes jobs that were claimed.
func (l *life) runs(jobs int) {
	for range jobs {
		if l.plan.phase != phaseWorking || l.rand.IntN(20) == 0 { // it goes back
			l.addOutcomes(1)
			continue
		}
		l.plan.running++
		l.flags.busy++
	}
}

// handBack ends a life as the worker does when the grace time is over.
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

// flags are how the worker decided before it had a plan: six booleans and three counts,
// and rules in words of their own. They share nothing with the plan but its constants.
type flags struct {
	size, busy, asked, finishing int
	drain, hungry, sated         bool
	leaving, over                bool
	weight                       int // bytes of an outcome
	turns                        []flag
	standing                     flag
}

// A flag is a call, as the flags see it.
type flag struct {
	aloft, shared bool
	want          int
}

func newFlags(size, weight int, drain bool) *flags {
	f := &flags{size: size, weight: weight, drain: drain, hungry: true, turns: make([]flag, 1)}
	if size >= overlapFrom {
		f.turns = make([]flag, turnLanes)
	}
	return f
}

// decide is what the loop of the worker did.
func (f *flags) decide() step {
	idle := f.busy == 0 && f.finishing == 0 && !f.flying()
	switch {
	case f.over:
		f.leaving = true
		return stepHandBack
	case f.nextTurn() >= 0:
		return stepTurn
	case !f.drain && !f.leaving && !f.hungry && f.free() > 0 && !f.standing.aloft:
		return stepBlock
	case idle && f.leaving:
		return stepQuit
	case idle && f.drain:
		return stepLook
	case f.mayClaim(1) && !f.flying():
		panic("it would go round in circles")
	}
	return stepRest
}

func (f *flags) free() int { return f.size - f.busy - f.asked }

func (f *flags) mayClaim(least int) bool { return f.hungry && !f.leaving && f.free() >= least }

// nextTurn is the lane for another turn, or -1 if none is due.
func (f *flags) nextTurn() int {
	grounded, least, alone := -1, 1, true
	for i, t := range f.turns {
		if t.aloft {
			least, alone = max(1, f.size/(2*turnLanes)), false
		} else if grounded < 0 {
			grounded = i
		}
	}
	if f.finishing >= least || f.mayClaim(least) && (alone || !f.sated) {
		return grounded
	}
	return -1
}

func (f *flags) flying() bool {
	for _, t := range f.turns {
		if t.aloft {
			return true
		}
	}
	return f.standing.aloft
}

// beginTurn loads a turn. The last one of a worker ends its lease.
func (f *flags) beginTurn() (lane, outcomes, want int, last bool) {
	if lane = f.nextTurn(); lane < 0 {
		lane = 0 // of handBack
	}
	size := 0
	for outcomes < f.finishing && outcomes < turnMost && size < turnBytes {
		size += f.weight
		outcomes++
	}
	if !f.leaving {
		share := (f.size + len(f.turns) - 1) / len(f.turns)
		want = min(f.free(), share, turnMost)
	}
	alone := !f.standing.aloft
	f.turns[lane] = flag{aloft: true, want: want}
	for i := range f.turns {
		if i != lane && f.turns[i].aloft {
			f.turns[lane].shared, f.turns[i].shared, alone = true, true, false
		}
	}
	last = f.leaving && alone && outcomes == f.finishing && (f.busy == 0 || f.over)
	f.asked += want
	f.finishing -= outcomes
	return lane, outcomes, want, last
}

func (f *flags) endTurn(lane int) {
	f.turns[lane].aloft = false
	f.asked -= f.turns[lane].want
}

// digest takes note of whether a turn left jobs waiting.
func (f *flags) digest(lane int, more bool) {
	switch turn := f.turns[lane]; {
	case more:
		f.hungry, f.sated = true, false
	case turn.want == 0:
	case turn.shared:
		f.sated = true
	default:
		f.hungry, f.sated = false, false
	}
}

func (f *flags) beginBlocking() {
	f.standing = flag{aloft: true, want: 1}
	f.asked++
}

func (f *flags) endBlocking() {
	f.standing.aloft = false
	f.asked--
}

func (f *flags) digestBlocking(more bool) {
	if more {
		f.hungry, f.sated = true, false
	}
}

func (f *flags) looked(found bool) { f.hungry = found }
