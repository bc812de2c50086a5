package main

import (
	"bytes"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// Faults of the network.
var networkScenarios = []scenario{
	{
		name:  "connections-cut",
		fault: "every connection cut for 10 s; and 40 between request and reply",
		bound: "no job under two ids; saving again is safe; what was refused is not stored; gap at most 2 s",
		run:   connectionsCut,
	},
	{
		name:  "replies-held",
		fault: "the network goes dead without a word for 10 s, then cut",
		bound: "the same",
		run:   repliesHeld,
	},
}

// isScript tells whether a request runs one, in whatever case its client writes.
func isScript(request []byte) bool {
	return bytes.Contains(bytes.ToUpper(request[:min(len(request), 40)]), []byte("EVALSHA"))
}

func connectionsCut(s *scene) {
	server := s.redis()
	proxy := redistest.StartProxy(s.tb, server.Addr)
	s.url = proxy.URL()
	down := time.Duration(s.size(10, 4)) * time.Second
	s.traffic(down+8*time.Second, 200, actor.Order{Within: 1000})
	s.produce(saves(down+4*time.Second, 50, false, actor.Order{Within: 1000})) // which believes what it is told
	for range 4 {
		before := proxy.Dropped()
		proxy.DropReplies(10, isScript)
		s.awaits(10*time.Second, func() bool { return proxy.Dropped()-before >= 10 })
	}
	proxy.DropReplies(0, nil)
	s.measure("%d replies lost", proxy.Dropped())
	s.checkPace(proxy.Dropped() >= 40 || s.library.name != ours, "no more than %d replies were lost", proxy.Dropped())
	proxy.Block()
	s.breaks(down)
	s.checkPace(s.count(actor.Refused)+s.count(actor.Unsure) > 0, "no save has failed")
	proxy.Unblock(s.tb)
	s.resumed(time.Now(), "")
	s.drained()
	s.measure("%d doubled", s.doubles())
}

func repliesHeld(s *scene) {
	server := s.redis()
	gate := redistest.StartGate(s.tb, server.Addr)
	s.url = gate.URL()
	down := time.Duration(s.size(10, 5)) * time.Second
	s.traffic(down+8*time.Second, 200, actor.Order{Within: 1000})
	s.produce(saves(down+4*time.Second, 50, false, actor.Order{Within: 1000})) // which believes what it is told
	gate.Hold()
	s.breaks(down)
	s.checkPace(s.count(actor.Refused)+s.count(actor.Unsure) > 0, "no save has failed")
	gate.CutAll()
	s.resumed(time.Now(), "")
	s.drained()
	s.measure("%d doubled", s.doubles())
}
