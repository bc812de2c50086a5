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
	belied  int // jobs that are stored though their saves were refused

	unsureStored int // jobs of which nobody knew to the end, and that are stored

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

// judge reads everything, and says what should not be. Nothing may move any more.
func (s *scene) judge() verdict {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	end, err := s.library.layout.readAll(ctx, s.direct)
	if err != nil {
		s.tb.Fatalf("judge: %v", err)
	}
	var ledgers [][]actor.Entry
	for _, p := range s.processes {
		ledgers = append(ledgers, p.entries())
	}
	v := count(s.library.layout, ledgers, end, s.watch.seenTwice())
	s.check(v.lost <= s.mayLose, "lost %d, at most %d", v.lost, s.mayLose)
	s.check(v.belied == 0, "%d are stored though they were refused", v.belied)
	s.check(v.stranded == 0, "stranded %d", v.stranded)
	s.check(v.twoIDs == 0, "%d under two ids", v.twoIDs)
	s.check(v.twoStates == 0, "%d in two states", v.twoStates)
	s.check(v.ghosts == 0, "%d ghosts", v.ghosts)
	s.check(v.orphans == 0, "%d orphans", v.orphans)
	if v.unsureStored > 0 {
		s.measure("%d stored of those that nobody knew of", v.unsureStored)
	}
	return v
}

// count makes the verdict: of what the processes wrote, of what is in Redis at the end,
// and of the ids that were seen in two states before.
func count(l layout, ledgers [][]actor.Entry, end snapshot, twice map[string][]string) verdict {
	var v verdict
	said := make(map[int]string) // of a job's saves, in the end
	starts, ends := make(map[int]int), make(map[int]int)
	for _, entries := range ledgers {
		for _, e := range entries {
			switch e.What {
			case actor.Saved:
				said[e.N] = actor.Saved
			case actor.Refused:
				v.refused++
				if said[e.N] == "" { // after an unsure one, it may be stored
					said[e.N] = actor.Refused
				}
			case actor.Unsure:
				v.unsure++
				if said[e.N] != actor.Saved {
					said[e.N] = actor.Unsure
				}
			case actor.Start:
				starts[e.N]++
			case actor.End:
				ends[e.N]++
			}
		}
	}
	v.reruns, v.doubled = moreThanOnce(starts), moreThanOnce(ends)
	ids := v.places(l, end, twice)
	v.twoIDs = moreThanOnce(ids)
	for n, word := range said {
		switch stored := ids[n] > 0; {
		case word == actor.Saved:
			v.saved++
			if !stored {
				v.lost++
			}
		case word == actor.Refused && stored:
			v.belied++
		case word == actor.Unsure && stored:
			v.unsureStored++
		}
	}
	return v
}

// places counts by where the jobs are in the end, and gives how many ids each job has.
func (v *verdict) places(l layout, end snapshot, twice map[string][]string) (ids map[int]int) {
	ids = make(map[int]int)
	for id, record := range end.records {
		if n := number(record); n >= 0 {
			ids[n]++
		}
		switch places := end.places[id]; {
		case len(places) == 0:
			v.orphans++
		case len(places) > 1: // counted below
		case !l.ends[places[0]]:
			v.stranded++
		case places[0] == "failed" || places[0] == "archived":
			v.failed++
		}
	}
	v.twoStates = len(twice)
	for id, places := range end.places {
		if _, stored := end.records[id]; !stored {
			v.ghosts++
		}
		if _, known := twice[id]; len(places) > 1 && !known {
			v.twoStates++
		}
	}
	return ids
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
