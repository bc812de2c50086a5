package main

import (
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// Faults of workers.
var workerScenarios = []scenario{
	{
		name:  "worker-killed",
		fault: "one of two workers killed (SIGKILL)",
		bound: "waiting again within 2 stall intervals + 1 s, ahead of the backlog's end; nobody else's job is charged a retry",
		run:   workerKilled,
	},
	{
		name:  "worker-frozen",
		fault: "a worker stopped (SIGSTOP) for 3.5 stall intervals, then continued",
		bound: "never in two states; the late completion changes nothing; context cancelled, ErrOwnershipLost",
		run:   workerFrozen,
	},
	{
		name:  "rolling-restarts",
		fault: "rolling restarts by SIGTERM, one a second",
		bound: "doubled 0; exits as soon as its longest handler ends",
		run:   rollingRestarts,
	},
	{
		name:  "grace-over",
		fault: "SIGTERM with handlers longer than the grace period",
		bound: "unfinished jobs are waiting again at once",
		run:   graceOver,
	},
	{
		name:  "killer-job",
		fault: "a job that kills its worker every time",
		bound: "at most MaxStalls + 1 runs, then failed with the reason; all others complete",
		run:   killerJob,
	},
}

func workerKilled(s *scene) {
	s.redis()
	s.fill(concurrency, actor.Job{Ms: 5000})
	s.fill(s.size(4000, 2500), actor.Job{Ms: 10})
	killed := s.work(actor.Order{})
	s.await("its jobs", func() bool { return killed.count(actor.Start) == concurrency })
	other := s.work(actor.Order{})
	s.await("some jobs to be done", func() bool { return other.count(actor.End) > 200 })
	at := time.Now()
	killed.kill()
	held := killed.open()
	s.measure("%d jobs in its hands", len(held))
	s.check(len(held) > 0, "it had no job")

	// A job is back when it waits or, if that was too short to be seen, when it runs again.
	back := make(map[string]time.Time)
	ids := make(map[string]bool)
	for _, id := range held {
		ids[id] = true
	}
	s.awaits(s.patience, func() bool {
		for id := range ids {
			if since := s.watch.waitingSince(id); back[id].IsZero() && since.After(at) {
				back[id] = since
			}
		}
		for _, e := range other.entries() {
			if known := back[e.ID]; e.What == actor.Start && ids[e.ID] && (known.IsZero() || e.Time().Before(known)) {
				back[e.ID] = e.Time()
			}
		}
		return len(back) == len(ids)
	})
	var latest time.Duration
	for _, when := range back {
		latest = max(latest, when.Sub(at))
	}
	s.check(len(back) == len(ids), "%d of %d jobs were taken back", len(back), len(ids))
	s.within(at, at.Add(latest), 2*stall+time.Second, "back after")
	s.drained()
	var lastOther, lastBack time.Time
	for _, e := range other.entries() {
		if e.What == actor.Start && ids[e.ID] {
			lastBack = e.Time()
		} else if e.What == actor.Start {
			lastOther = e.Time()
		}
	}
	s.checkPace(lastBack.Before(lastOther), "they ran at the end of the backlog")
	s.charged(ids)
	s.mostRuns("rerun", s.reruns(), concurrency)
	s.mostRuns("doubled", s.doubles(), concurrency) // outcomes that were on their way
}

// most checks a number.
func (s *scene) most(what string, n, most int) {
	s.check(n <= most, "%s %d, at most %d", what, n, most)
}

// doubles counts the jobs, but for some, whose handlers came to their end more than once.
func (s *scene) doubles(but ...int) int {
	ends := make(map[int]int)
	for _, p := range s.processes {
		for _, e := range p.entries() {
			if e.What == actor.End && !slices.Contains(but, e.N) {
				ends[e.N]++
			}
		}
	}
	return moreThanOnce(ends)
}

// charged checks that no job but some has paid for what happened with a retry.
func (s *scene) charged(but map[string]bool) {
	all, err := s.library.layout.readAll(s.ctx, s.direct)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	n := 0
	for id, record := range all.records {
		if !but[id] && s.library.layout.hash != "" && !strings.Contains(record, `"retries":3`) {
			n++
		}
	}
	s.check(n == 0, "%d other jobs were charged a retry", n)
}

func workerFrozen(s *scene) {
	s.redis()
	s.fill(concurrency, actor.Job{Ms: 5000, Does: actor.Late})
	frozen := s.work(actor.Order{})
	s.await("its jobs", func() bool { return frozen.count(actor.Start) == concurrency })
	s.await("them to be active", func() bool { return s.watch.count("active") == concurrency })
	frozen.signal(syscall.SIGSTOP)
	s.fill(s.size(4000, 2000), actor.Job{Ms: 5})
	other := s.work(actor.Order{})
	s.await("the other's first job", func() bool { return other.count(actor.Start) > 0 })
	s.pass(7 * stall / 2)
	frozens := func(p *process, what string) (n int) { // of the jobs that the frozen worker began with
		for _, e := range p.entries() {
			if e.What == what && e.N < concurrency {
				n++
			}
		}
		return n
	}
	s.await("the other to have taken the jobs over", func() bool {
		return s.library.name != ours || frozens(other, actor.Start) >= concurrency
	})
	ended := frozen.count(actor.End)
	frozen.signal(syscall.SIGCONT)
	if ended > 0 { // then nothing of what follows holds
		s.checkPace(false, "%d jobs had ended before", ended)
		s.drained()
		return
	}
	s.await("its late completions", func() bool { return frozen.count(actor.End) >= concurrency })
	s.drained()
	lost, cancelled := frozen.count(actor.Lost), 0
	for _, e := range frozen.entries() {
		if e.What == actor.Cancel && strings.Contains(e.Text, "no longer owned") {
			cancelled++
		}
	}
	own, done := frozens(frozen, actor.Done), frozens(other, actor.Done)
	s.measure("%d late completions, %d contexts cancelled, %d ErrOwnershipLost", frozens(frozen, actor.End), cancelled, lost)
	s.check(own == 0, "%d late completions were recorded", own)
	s.check(cancelled == concurrency, "%d of %d contexts were cancelled", cancelled, concurrency)
	s.check(lost >= concurrency, "%d of %d losses were told", lost, concurrency)
	s.check(done == concurrency, "the other has completed %d of %d", done, concurrency)
}

func rollingRestarts(s *scene) {
	s.redis()
	const longest = 300 * time.Millisecond
	rounds := s.size(20, 8)
	s.produce(actor.Order{Count: 30 * (rounds + 2), Open: true, Rate: 20, Job: actor.Job{Ms: int(longest.Milliseconds())}})
	workers := s.workers(2)
	var ended, exited time.Time // of the slowest: its last handler, and itself
	busy := 0
	for range rounds {
		s.pass(time.Second)
		oldest := workers[0]
		next := s.work(actor.Order{})
		s.await("a worker to mind signals", func() bool { return next.count(actor.Ready) > 0 })
		workers = append(workers[1:], next)
		if len(oldest.open()) > 0 {
			busy++
		}
		began := time.Now()
		oldest.signal(syscall.SIGTERM)
		s.ended(oldest)
		for _, e := range oldest.entries() {
			if e.What == actor.End && e.Time().After(began) {
				began = e.Time()
			}
		}
		if oldest.end.Sub(began) > exited.Sub(ended) {
			ended, exited = began, oldest.end
		}
	}
	s.measure("%d restarts, %d of workers that were busy", rounds, busy)
	s.checkPace(busy >= rounds/2, "%d of %d workers were busy", busy, rounds)
	s.within(ended, exited, 500*time.Millisecond, "slowest exit, after the worker's last handler,")
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
	s.mostRuns("rerun", s.reruns(), 0)
}

// reruns counts the jobs whose handlers began more than once.
func (s *scene) reruns() int {
	starts := make(map[int]int)
	for _, p := range s.processes {
		for _, e := range p.entries() {
			if e.What == actor.Start {
				starts[e.N]++
			}
		}
	}
	return moreThanOnce(starts)
}

func graceOver(s *scene) {
	s.redis()
	s.fill(concurrency, actor.Job{Ms: 3000})
	const grace = 500 * time.Millisecond
	first := s.work(actor.Order{Grace: int(grace.Milliseconds())})
	s.await("its jobs", func() bool { return first.count(actor.Start) == concurrency })
	s.pass(100 * time.Millisecond)
	began := time.Now()
	first.signal(syscall.SIGTERM)
	waiting := s.library.layout.lists[0]
	s.await("the jobs to wait again", func() bool { return s.watch.count(waiting) == concurrency })
	back := time.Now()
	s.ended(first)
	over := began.Add(grace)
	if cancelled := first.first(began, actor.Cancel); !cancelled.IsZero() {
		s.within(over, cancelled, 500*time.Millisecond, "handlers cancelled, after the grace period,")
		over = cancelled
	} else {
		s.check(s.library.name != ours, "no handler was cancelled")
	}
	s.within(over, back, 500*time.Millisecond, "waiting again, after that,")
	s.within(over, first.end, time.Second, "exit, after that,")
	s.work(actor.Order{})
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
}

func killerJob(s *scene) {
	s.redis()
	const killer, maxStalls = 60, 3
	s.mayFail, s.mayDie = 1, true
	count := s.size(2000, 500)
	s.ended(s.produce(actor.Order{
		Count: count, Lines: 50, Job: actor.Job{Ms: 10}, Special: []actor.Job{{N: killer, Does: actor.Kills}},
	}))
	workers := []*process{s.work(actor.Order{}), s.work(actor.Order{})}
	deaths := 0
	filled := time.Now()
	over := func() bool { return s.watch.leftSince(filled) == 0 }
	began := time.Now()
	for !s.awaits(20*time.Millisecond, over) && time.Since(began) < 2*s.patience && deaths < 30 {
		for i, w := range workers {
			if w.exited() { // what runs a service starts it again
				deaths++
				workers[i] = s.work(actor.Order{})
			}
		}
	}
	s.measure("%d deaths", deaths)
	s.check(deaths <= maxStalls+1, "%d deaths, at most %d", deaths, maxStalls+1)
	s.check(deaths > 0, "nobody died")
	all, err := s.library.layout.readAll(s.ctx, s.direct)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	for id, record := range all.records {
		places := all.places[id]
		isKiller := number(record) == killer
		good := len(places) == 1 && (places[0] == "succeeded" || places[0] == "completed")
		switch {
		case !isKiller && !good:
			s.checkRun(false, "job %s is in %v", id, places)
		case isKiller:
			s.check(len(places) == 1 && places[0] == "failed", "the killer is in %v", places)
			s.check(strings.Contains(record, "stalled"), "the record of the killer gives no reason")
		}
	}
	charged := make(map[string]bool)
	for id, record := range all.records {
		charged[id] = number(record) == killer
	}
	s.charged(charged)
}
