package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/pulse"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// What depends on how fast the machine is. A machine that is busy with something else can
// spoil such a check, so a scenario that failed nothing else is run again.

// mostTries is how often a scenario is run at most.
const mostTries = 3

// enact runs a scenario. Only beequeue's is run again.
func enact(ctx context.Context, l *library, sc scenario, bounded bool) result {
	if why := l.cannot(sc.needs); why != "" {
		return result{scenario: sc, library: l.name, skipped: why}
	}
	if l.name != ours {
		return try(ctx, l, sc, bounded)
	}
	return repeat(func() result { return try(ctx, l, sc, bounded) })
}

// repeat runs a scenario again while nothing but delays speaks against it. Problems count
// at once.
func repeat(run func() result) result {
	var before []string
	for tries := 1; ; tries++ {
		r := run()
		if len(r.delays) > 0 && len(r.problems) == 0 && tries < mostTries {
			before = append(before, fmt.Sprintf("try %d: %s", tries, r.why()))
			continue
		}
		r.measures = append(r.measures, before...)
		return r
	}
}

// try runs a scenario once.
func try(ctx context.Context, l *library, sc scenario, bounded bool) result {
	r := result{scenario: sc, library: l.name}
	began := time.Now()
	err := redistest.Program("chaos", func(tb testing.TB) error {
		s := &scene{tb: tb, ctx: ctx, library: l, bounded: bounded, dir: tb.TempDir(), patience: l.patience, interval: 20 * time.Millisecond}
		defer s.close()
		defer func() { r.measures, r.problems, r.delays = s.measures, s.problems, s.delays }()
		s.play(sc)
		r.verdict = s.judge()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	})
	if err != nil { // a server did not start or answer
		r.delays = append(r.delays, err.Error())
	}
	r.took = time.Since(began)
	return r
}

// gaveUp ends a scenario of which nothing more can come. What there is is judged.
type gaveUp struct{ why string }

func (s *scene) play(sc scenario) {
	if s.plays(func() { sc.run(s) }) {
		return
	}
	s.cut = true
	for _, p := range s.processes {
		if p.order.Role == actor.Producer {
			p.kill()
		}
	}
	s.plays(s.drained)
}

// plays reports whether f came to its end. That it gave up is a delay only if it can be
// seen that the machine did not run the scene.
func (s *scene) plays(f func()) (whole bool) {
	defer func() {
		switch why := recover().(type) {
		case nil:
		case gaveUp:
			s.checkRun(false, "%s", why.why)
		default:
			panic(why)
		}
	}()
	f()
	return true
}

// checkPace is check for what depends on how fast the machine is.
func (s *scene) checkPace(holds bool, format string, args ...any) {
	if !holds {
		s.delays = append(s.delays, fmt.Sprintf(format, args...))
	}
}

// checkRun is check for what must hold on any machine that runs the scene. If it was seen
// not to, the scenario is tried again.
func (s *scene) checkRun(holds bool, format string, args ...any) {
	if s.starved() {
		s.checkPace(holds, format, args...)
	} else {
		s.check(holds, format, args...)
	}
}

// within checks a time, and takes note of it. The bound is extended by the time for which a
// process could not run meanwhile.
func (s *scene) within(from, to time.Time, most time.Duration, what string) {
	took := to.Sub(from)
	s.measure("%s %s", what, seconds(took))
	if held := s.heldUp(from, to); held > 0 {
		s.measure("of which a process could not run for %s", seconds(held))
		most += held
	}
	s.checkPace(took <= most, "%s %s, at most %s", what, seconds(took), seconds(most))
}

// heldUp is the longest time, within a span, for which a process of the scene could not run.
func (s *scene) heldUp(from, to time.Time) (longest time.Duration) {
	for _, p := range s.processes {
		for _, e := range p.entries() {
			if e.What != actor.Starved {
				continue
			}
			begin, end := e.Time().Add(-time.Duration(e.N)*time.Millisecond), e.Time()
			if begin.Before(from) {
				begin = from
			}
			if end.After(to) {
				end = to
			}
			longest = max(longest, end.Sub(begin))
		}
	}
	return longest
}

// mostRuns checks a number of jobs that were run more than once. A worker that the machine
// did not run may have lost its jobs by right.
func (s *scene) mostRuns(what string, n, most int) {
	s.checkRun(n <= most, "%s %d, at most %d", what, n, most)
}

// starved reports whether a worker, or Redis, could not run for so long that the worker may
// have been taken for lost: it phones in three times in a stall interval.
func (s *scene) starved() bool {
	const enough = stall - stall/3
	if s.watch != nil && s.watch.slowest() >= enough {
		return true
	}
	for _, p := range s.processes {
		for _, e := range p.entries() {
			if p.order.Role == actor.Worker && e.What == actor.Starved && time.Duration(e.N)*time.Millisecond >= enough {
				return true
			}
		}
	}
	return false
}

// calm waits until processes that have nothing to do use next to no CPU for a while. What
// is left of their earlier work is let pass.
func (s *scene) calm(all []*process, while time.Duration) {
	const most = 5.0 // % of a processor, each
	grown := pulse.Calmest(most, func() (cpu float64) {
		for _, p := range all {
			cpu += 100 * p.cpu().Seconds() / while.Seconds() / float64(len(all))
		}
		return cpu
	}, func() { s.pass(while) })
	for _, p := range all {
		s.check(!p.exited() || s.library.name != ours, "a %s ended: %s", p.name, p.stderr.headline())
	}
	s.measure("%.1f %% CPU while there was nothing to do", slices.Min(grown))
	s.checkPace(slices.Min(grown) <= most, "%.1f %% CPU in each %v in which there was nothing to do", grown, while)
}

// savesWithin checks the slowest save.
func (s *scene) savesWithin(most time.Duration) {
	var slowFrom, slowTo time.Time
	s.eachSaved(func(from, to time.Time) {
		if to.Sub(from) > slowTo.Sub(slowFrom) {
			slowFrom, slowTo = from, to
		}
	})
	s.within(slowFrom, slowTo, most, "slowest save")
}
