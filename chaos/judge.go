package main

import (
	"context"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// A verdict counts what became of the jobs, from what the processes wrote and what
// is in Redis at the end.
type verdict struct {
	saved   int // acknowledged
	refused int // saves that failed for sure
	unsure  int // saves that failed, and nobody knows
	unasked int // jobs that are stored though no save of theirs was acknowledged

	lost      int // acknowledged, and not in Redis
	stranded  int // still not at their end
	failed    int
	reruns    int // jobs that were started more than once
	doubled   int // jobs whose handlers came to their end more than once
	twoIDs    int // stored under two ids
	twoStates int // seen in two states at once, at any time
	ghosts    int // in a state, without a record
	orphans   int // a record, in no state
}

// judge reads everything. Nothing may move any more.
func (s *scene) judge() verdict {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	end, err := s.library.layout.readAll(ctx, s.direct)
	if err != nil {
		s.tb.Fatalf("judge: %v", err)
	}
	var v verdict
	acknowledged := make(map[int]bool)
	starts, ends := make(map[int]int), make(map[int]int)
	for _, p := range s.processes {
		for _, e := range p.entries() {
			switch e.What {
			case actor.Saved:
				acknowledged[e.N] = true
			case actor.Refused:
				v.refused++
			case actor.Unsure:
				v.unsure++
			case actor.Start:
				starts[e.N]++
			case actor.End:
				ends[e.N]++
			}
		}
	}
	v.saved = len(acknowledged)
	ids := make(map[int]int)
	for id, record := range end.records {
		n := number(record)
		if n >= 0 {
			if ids[n]++; ids[n] == 2 {
				v.twoIDs++
			}
		}
		if !acknowledged[n] && n >= 0 && ids[n] == 1 {
			v.unasked++
		}
		switch places := end.places[id]; {
		case len(places) == 0:
			v.orphans++
		case len(places) > 1: // counted below
		case !s.library.layout.ends[places[0]]:
			v.stranded++
		case places[0] == "failed" || places[0] == "archived":
			v.failed++
		}
	}
	for n := range acknowledged {
		if ids[n] == 0 {
			v.lost++
		}
	}
	for id, places := range end.places {
		if _, ok := end.records[id]; !ok {
			v.ghosts++
		}
		if len(places) > 1 {
			s.watch.mu.Lock()
			s.watch.twice[id] = places
			s.watch.mu.Unlock()
		}
	}
	s.watch.mu.Lock()
	v.twoStates = len(s.watch.twice)
	s.watch.mu.Unlock()
	v.reruns, v.doubled = moreThanOnce(starts), moreThanOnce(ends)
	s.check(v.lost == 0 || s.tolerant, "lost %d", v.lost)
	s.check(v.stranded == 0, "stranded %d", v.stranded)
	s.check(v.twoIDs == 0, "%d under two ids", v.twoIDs)
	s.check(v.twoStates == 0, "%d in two states", v.twoStates)
	s.check(v.ghosts == 0, "%d ghosts", v.ghosts)
	s.check(v.orphans == 0, "%d orphans", v.orphans)
	return v
}

func moreThanOnce(counts map[int]int) int {
	n := 0
	for _, count := range counts {
		if count > 1 {
			n++
		}
	}
	return n
}
