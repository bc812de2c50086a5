package main

import (
	"strings"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// Faults of the server.
var redisScenarios = []scenario{
	{
		name:  "redis-killed",
		fault: "redis-server killed, restarted after 2 s from its append-only file",
		bound: "resumes within 2 s without a restart; lost 0, doubled 0",
		run:   redisKilled,
	},
	{
		name:  "script-flush",
		fault: "SCRIPT FLUSH every 200 ms",
		bound: "refused 0",
		run:   scriptFlush,
	},
	{
		name:  "out-of-memory",
		fault: "Redis out of memory (noeviction) for 5 s, saving and working",
		bound: "running jobs finish, doubled 0; saves fail with ErrOutOfMemory; resumes by itself",
		run:   outOfMemory,
	},
}

// What a producer does in most scenarios: saves a second, and at once.
const (
	trafficRate  = 300
	trafficLines = 20
)

// traffic is a producer that goes on for so long, and then until drained, and two workers.
func (s *scene) traffic(length time.Duration, rate int, o actor.Order) (producer *process) {
	s.tb.Helper()
	producer = s.produce(saves(length, rate, true, o))
	s.workers(2)
	s.await("some jobs to be done", func() bool { return s.count(actor.End) > 200 })
	return producer
}

// saves is the order of a producer that goes on for so long, and then until drained: on a
// slow machine, the fault comes late. It makes saves that failed again or not.
func saves(length time.Duration, rate int, again bool, o actor.Order) actor.Order {
	o.Count, o.Open, o.Rate, o.Again = int(length.Seconds()*float64(rate)), true, rate, again
	if o.Lines == 0 {
		o.Lines = trafficLines
	}
	if o.Job.Ms == 0 {
		o.Job.Ms = 10
	}
	return o
}

func redisKilled(s *scene) {
	server := s.redis()
	s.traffic(time.Duration(s.size(14, 8))*time.Second, trafficRate, actor.Order{})
	server.Kill()
	s.breaks(2 * time.Second)
	server.Restart(s.tb)
	s.resumed(time.Now(), "")
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
}

func scriptFlush(s *scene) {
	s.redis()
	stop := s.every(200*time.Millisecond, func() error { return s.do("SCRIPT", "FLUSH").Error() })
	defer stop()
	s.traffic(time.Duration(s.size(15, 6))*time.Second, trafficRate, actor.Order{})
	s.drained()
	s.most("refused", s.count(actor.Refused), 0)
	s.most("unsure", s.count(actor.Unsure), 0)
	s.mostRuns("doubled", s.doubles(), 0)
}

func outOfMemory(s *scene) {
	s.redis("--maxmemory-policy", "noeviction")
	s.traffic(time.Duration(s.size(14, 9))*time.Second, 200, actor.Order{Job: actor.Job{Ms: 200}})
	before := len(s.processes)
	s.must("CONFIG", "SET", "maxmemory", "1")
	began := time.Now()
	s.await("a save to be refused", func() bool { return s.count(actor.Refused)+s.count(actor.Unsure) > 0 })
	late := s.work(actor.Order{})
	s.pass(5 * time.Second)
	ends := 0
	for _, p := range s.processes[:before] {
		started := make(map[int]bool)
		for _, e := range p.entries() {
			if e.What == actor.Start && e.Time().Before(began) {
				started[e.N] = true
			}
			if e.What == actor.Done && started[e.N] && e.Time().After(began) {
				ends++
			}
		}
	}
	s.measure("%d running jobs recorded meanwhile", ends)
	s.checkPace(ends > 0 || s.library.name != ours, "no running job was recorded while memory was out")
	s.must("CONFIG", "SET", "maxmemory", "0")
	s.resumed(time.Now(), "")
	s.await("work for the late worker", func() bool { return late.count(actor.Start) > 0 })
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
	unlike, refusal := 0, "OOM"
	if s.library.name == ours {
		refusal = beequeue.ErrOutOfMemory.Error()
	}
	for _, p := range s.processes {
		for _, e := range p.entries() {
			if e.What == actor.Refused && !strings.Contains(e.Text, refusal) {
				unlike++
			}
		}
	}
	s.check(unlike == 0, "%d saves were refused for other reasons", unlike)
	s.measure("%d refused", s.count(actor.Refused))
	s.check(s.count(actor.Refused) > 0 || s.library.name != ours, "no save was refused")
}
