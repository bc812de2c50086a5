package beequeue

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The plan decides as the worker's flags do, at each step of many random lives. (20,000
// of them, with 2.5 million steps, agree too; they take a minute.)
func TestPlan(t *testing.T) {
	t.Parallel()
	const lives = 2_000
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
	t     *testing.T
	seed  uint64
	rand  *rand.Rand
	plan  plan
	flags *flags
	busy  int          // how often something happens, in percent
	turns []flyingTurn // of each lane
	block bool         // the blocking call is in flight
	text  string       // of each outcome
}

type flyingTurn struct {
	inFlight        bool
	outcomes, slots int
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1))}
	sizes := []int{1, 2, 3, 7, 8, 9, 16, 17, 40, 1200, 3000}
	size, drain := sizes[l.rand.IntN(len(sizes))], l.rand.IntN(3) == 0
	if l.rand.IntN(10) == 0 {
		l.text = strings.Repeat("x", turnBytes/3)
	}
	l.plan = newPlan(size, drain)
	l.flags = newFlags(size, drain)
	l.turns = make([]flyingTurn, l.plan.lanes)
	l.busy = 5 + l.rand.IntN(95)
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
	require.Equal(l.t, want, got, "life %d: %+v", l.seed, l.plan)
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
		require.False(l.t, l.plan.idle(), "life %d rests for ever", l.seed)
		l.happen()
	}
	return got
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
			l.flags.stop()
		}
	default:
		if l.plan.phase == phaseStopping {
			l.plan.expire()
			l.flags.expire()
		}
	}
}

func (l *life) handlerReturns() {
	if l.plan.running == 0 {
		return
	}
	l.plan.running--
	l.flags.end()
	if l.rand.IntN(10) > 0 { // else the job was lost, or given up before
		l.addOutcomes(1)
	}
}

func (l *life) addOutcomes(n int) {
	l.plan.outcomes += n
	l.flags.addOutcomes(n, l.text)
}

func (l *life) beginTurn() {
	claims := l.plan.claims()
	lane, outcomes, slots, last := l.flags.beginTurn()
	require.Equal(l.t, slots, claims, "life %d: %+v", l.seed, l.plan)
	require.False(l.t, l.turns[lane].inFlight)
	l.plan.beginTurn(outcomes, slots)
	require.Equal(l.t, last, l.plan.lastTurn(), "life %d: %+v", l.seed, l.plan)
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
	if l.rand.IntN(2) == 0 {
		jobs = l.rand.IntN(f.slots + 1)
	}
	l.runs(jobs)
	more := l.rand.IntN(2) == 0
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
	more := l.rand.IntN(2) == 0
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
		l.flags.run()
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

// flags are the flags of a worker without Redis.
type flags struct {
	*worker
}

func newFlags(size int, drain bool) *flags {
	w := &worker{
		q:      &Queue{config: Config{StallInterval: time.Second}},
		size:   size,
		drain:  drain,
		hungry: true,
		over:   make(chan struct{}),
	}
	w.initFlights()
	return &flags{w}
}

// decide is what the loop of the worker does.
func (f *flags) decide() step {
	switch {
	case isDone(f.over):
		f.leaving = true
		return stepHandBack
	case f.nextTurn() != nil:
		return stepTurn
	case f.mayWait():
		return stepBlock
	case f.idle() && f.leaving:
		return stepQuit
	case f.idle() && f.drain:
		return stepLook
	case f.mayClaim(1) && !f.flying():
		panic("it would go round in circles")
	}
	return stepRest
}

func (f *flags) stop() { f.leaving = true }

func (f *flags) expire() { close(f.over) }

func (f *flags) end() { f.busy-- }

func (f *flags) run() { f.busy++ }

func (f *flags) addOutcomes(n int, text string) {
	for range n {
		f.finishing = append(f.finishing, ending{call: turnOutcome{what: turnReturned, text: text}})
	}
}

func (f *flags) beginTurn() (lane, outcomes, slots int, last bool) {
	turn := f.nextTurn()
	if turn == nil {
		turn = f.turns[0] // of handBack
	}
	for f.turns[lane] != turn {
		lane++
	}
	f.load(turn)
	return lane, len(turn.batch), turn.want, turn.lease == 0
}

func (f *flags) endTurn(lane int) {
	f.turns[lane].aloft = false
	f.asked -= f.turns[lane].want
}

func (f *flags) digest(lane int, more bool) {
	f.turns[lane].reply.more = more
	f.worker.digest(f.turns[lane])
}

func (f *flags) beginBlocking() {
	f.standing.aloft, f.standing.want = true, 1
	f.asked++
}

func (f *flags) endBlocking() {
	f.standing.aloft = false
	f.asked--
}

func (f *flags) digestBlocking(more bool) {
	f.standing.reply.more = more
	f.worker.digest(f.standing)
}

func (f *flags) looked(found bool) { f.hungry = found }
