package main

import (
	"context"
	"fmt"
	"slices"
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
	neverRun  int // succeeded, and no handler came to its end
	misnamed  int // stored, but not under the id that was acknowledged
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
	hard := v // what counts at once
	if s.lagging {
		s.checkPace(v.lost <= s.mayLose, "lost %d, at most %d", v.lost, s.mayLose)
		hard.lost = 0
	}
	if s.mayDie && s.starved() { // a job on its last chance whose worker was taken for lost
		s.checkPace(v.failed <= s.mayFail, "failed %d, at most %d", v.failed, s.mayFail)
		hard.failed = 0
	}
	if s.cut && len(s.problems) == 0 { // of what was given up, something is left
		s.checkPace(v.stranded == 0, "stranded %d, at most 0", v.stranded)
		hard.stranded = 0
	}
	s.problems = append(s.problems, hard.problems(s.mayLose, s.mayFail)...)
	for _, p := range s.processes {
		s.check(p.order.Role != actor.Worker || !p.exited() || p.told || s.mayDie, "a worker ended by itself: %s", p.stderr.headline())
	}
	s.checkPace(s.watch.often() > 0.02, "the judge has hardly looked at Redis")
	if v.unsureStored > 0 {
		s.measure("%d stored of those that nobody knew of", v.unsureStored)
	}
	return v
}

// problems says what should not be, but for so many jobs that may be lost or fail.
func (v verdict) problems(mayLose, mayFail int) (all []string) {
	for _, p := range []struct {
		n, most int
		what    string
	}{
		{v.lost, mayLose, "lost"},
		{v.belied, 0, "stored though they were refused"},
		{v.stranded, 0, "stranded"},
		{v.failed, mayFail, "failed"},
		{v.neverRun, 0, "succeeded without a run"},
		{v.misnamed, 0, "under another id than was acknowledged"},
		{v.twoIDs, 0, "under two ids"},
		{v.twoStates, 0, "in two states"},
		{v.ghosts, 0, "ghosts"},
		{v.orphans, 0, "orphans"},
	} {
		if p.n > p.most {
			all = append(all, fmt.Sprintf("%s %d, at most %d", p.what, p.n, p.most))
		}
	}
	return all
}

// count makes the verdict: of what the processes wrote, of what is in Redis at the end,
// and of the ids that were seen in two states before.
func count(l layout, ledgers [][]actor.Entry, end snapshot, twice map[string][]string) verdict {
	var v verdict
	said := make(map[int]string) // of a job's saves, in the end
	acknowledged := make(map[int]string)
	starts, ends := make(map[int]int), make(map[int]int)
	for _, entries := range ledgers {
		for _, e := range entries {
			switch e.What {
			case actor.Saved:
				said[e.N], acknowledged[e.N] = actor.Saved, e.ID
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
	for n, all := range ids {
		if len(all) > 1 {
			v.twoIDs++
		}
		if slices.ContainsFunc(all, func(id string) bool { return end.succeeded(l, id) }) && ends[n] == 0 {
			v.neverRun++
		}
	}
	for n, word := range said {
		switch stored := len(ids[n]) > 0; {
		case word == actor.Saved:
			v.saved++
			if !stored {
				v.lost++
			} else if id := acknowledged[n]; id != "" && !slices.Contains(ids[n], id) {
				v.misnamed++
			}
		case word == actor.Refused && stored:
			v.belied++
		case word == actor.Unsure && stored:
			v.unsureStored++
		}
	}
	return v
}

// succeeded tells whether a job is where jobs are that have succeeded.
func (s snapshot) succeeded(l layout, id string) bool {
	places := s.places[id]
	return len(places) == 1 && l.ends[places[0]] && !isFailed(places[0])
}

func isFailed(state string) bool { return state == "failed" || state == "archived" }

// places counts by where the jobs are in the end, and gives the ids of each job.
func (v *verdict) places(l layout, end snapshot, twice map[string][]string) (ids map[int][]string) {
	ids = make(map[int][]string)
	for id, record := range end.records {
		if n := number(record); n >= 0 {
			ids[n] = append(ids[n], id)
		}
		switch places := end.places[id]; {
		case len(places) == 0:
			v.orphans++
		case len(places) > 1: // counted below
		case !l.ends[places[0]]:
			v.stranded++
		case isFailed(places[0]):
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
