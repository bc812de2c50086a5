package main

import (
	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// Faults of producers.
var producerScenarios = []scenario{
	{
		name:  "producer-killed",
		fault: "producers killed in mid-batch",
		bound: "state clean; every acknowledged job is stored",
		run:   func(s *scene) { producerKilled(s, actor.Order{Batch: 1000}) },
	},
	{
		name:  "saver-killed",
		fault: "producers killed while 50 saves are under way",
		bound: "the same",
		run:   func(s *scene) { producerKilled(s, actor.Order{Lines: 50}) },
	},
}

func producerKilled(s *scene, o actor.Order) {
	s.redis()
	o.Count = 1_000_000
	underWay := 0
	for i := range s.size(5, 3) {
		p := s.produce(o)
		s.await("some saves", func() bool { return p.count(actor.Saved) >= 1000*(i+1)/2 })
		p.kill()
		underWay += p.count(actor.Save) - p.count(actor.Saved)
	}
	s.measure("%d saves were under way", underWay)
	s.checkPace(underWay > 0, "no save was under way")
	saved, stored := s.count(actor.Saved), 0
	s.await("a look", func() bool {
		stored = s.watch.count(s.library.layout.lists[0])
		return stored >= saved
	})
	s.measure("%d stored without an acknowledgement", stored-saved)
	s.work(actor.Order{Concurrency: 50})
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
}
