package main

import (
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// Faults of a cluster: three masters and three replicas.
var clusterScenarios = []scenario{
	{
		name:  "cluster-failover",
		fault: "cluster: manual failover",
		bound: "refused 0, lost 0",
		needs: need{cluster: true},
		run:   clusterFailover,
	},
	{
		name:  "cluster-migration",
		fault: "cluster: slot migration with a pause of 3 s halfway",
		bound: "refused 0, lost 0",
		needs: need{cluster: true},
		run:   clusterMigration,
	},
	{
		name:  "cluster-killed",
		fault: "cluster: master killed",
		bound: "resumes within 2 s of the new master; lost is only what had not been copied (docs/guarantees.md)",
		needs: need{cluster: true},
		run: func(s *scene) {
			s.mayLose, s.lagging = trafficLines, true
			clusterKilled(s)
		},
	},
	{
		name:  "cluster-killed-wait",
		fault: "cluster: master killed, back after 3 s; saves wait for a replica (WAIT)",
		bound: "lost 0; saves resume within 2 s of the replica",
		needs: need{cluster: true, replicas: true},
		run: func(s *scene) {
			s.replicas = 1
			clusterKilled(s)
		},
	},
}

// queueKey is a key in the queue's slot.
const queueKey = "{" + queueName + "}"

func (s *scene) cluster(args ...string) *redistest.Cluster {
	s.tb.Helper()
	c := redistest.StartCluster(s.tb, append(args, "--appendonly", "yes")...)
	s.url = c.URL()
	s.look(s.url)
	return c
}

func clusterFailover(s *scene) {
	c := s.cluster(redistest.Steady)
	s.traffic(time.Duration(s.size(12, 8))*time.Second, trafficRate, actor.Order{Within: 30_000})
	c.Failover(s.tb, queueKey)
	s.resumed(time.Now(), "")
	s.drained()
	s.savesWithin(10 * time.Second)
	s.most("refused", s.count(actor.Refused), 0)
	s.most("unsure", s.count(actor.Unsure), 0)
	s.mostRuns("doubled", s.doubles(), 0)
}

func clusterMigration(s *scene) {
	c := s.cluster(redistest.Steady)
	s.traffic(time.Duration(s.size(14, 9))*time.Second, trafficRate, actor.Order{Within: 30_000})
	c.MigrateSlot(s.tb, queueKey, func() { s.pass(3 * time.Second) })
	s.resumed(time.Now(), "")
	s.drained()
	s.savesWithin(10 * time.Second)
	s.most("refused", s.count(actor.Refused), 0)
	s.most("unsure", s.count(actor.Unsure), 0)
	s.mostRuns("doubled", s.doubles(), 0)
}

func clusterKilled(s *scene) {
	c := s.cluster()
	s.traffic(time.Duration(s.size(20, 14))*time.Second, trafficRate, actor.Order{})
	old := c.MasterFor(s.tb, queueKey)
	began := time.Now()
	old.Kill()
	master := c.MasterFor(s.tb, queueKey)
	at := time.Now()
	s.measure("a new master after %s", seconds(at.Sub(began)))
	if s.replicas == 0 {
		s.resumed(at, "")
	} else {
		s.pass(3 * time.Second)
		old.Restart(s.tb)
		s.resumed(s.replicated(master), "with the replica")
	}
	s.drained()
	s.measure("%d doubled", s.doubles())
}

// replicated waits until a master has a replica in step, and tells when that was.
func (s *scene) replicated(master *redistest.Server) time.Time {
	s.tb.Helper()
	s.await("a replica", func() bool {
		message := master.Do(s.tb, "INFO", "replication")
		info, err := message.ToString()
		return err == nil && strings.Contains(info, "state=online")
	})
	return time.Now()
}

// Faults of a master and a replica that three Sentinels watch.
var sentinelScenarios = []scenario{
	{
		name:  "sentinel-failover",
		fault: "Sentinel: failover by command",
		bound: "resumes within 2 s; nobody on the demoted master beyond 5 s; lost is only what that accepted (docs/guarantees.md)",
		needs: need{sentinel: true},
		run: func(s *scene) {
			sentinelFailover(s, false)
		},
	},
	{
		name:  "sentinel-failover-min",
		fault: "Sentinel: failover by command; the servers have min-replicas-to-write 1",
		bound: "lost is only what it accepted at that moment; nobody on it beyond 5 s; resumes within 2 s of the replica",
		needs: need{sentinel: true},
		run: func(s *scene) {
			s.mayLose = trafficLines
			sentinelFailover(s, true, "--min-replicas-to-write", "1")
		},
	},
	{
		name:  "sentinel-failover-wait",
		fault: "Sentinel: failover by command; saves wait for a replica (WAIT)",
		bound: "lost 0; nobody on the demoted master beyond 5 s; saves resume within 2 s of the replica",
		needs: need{sentinel: true, replicas: true},
		run: func(s *scene) {
			s.replicas = 1
			sentinelFailover(s, true)
		},
	},
	{
		name:  "sentinel-killed",
		fault: "Sentinel: master killed",
		bound: "resumes within 2 s of the new master; lost is only what had not been copied (docs/guarantees.md)",
		needs: need{sentinel: true},
		run: func(s *scene) {
			s.mayLose, s.lagging = trafficLines, true
			sentinelKilled(s)
		},
	},
	{
		name:  "sentinel-killed-wait",
		fault: "Sentinel: master killed, back after 3 s; saves wait for a replica (WAIT)",
		bound: "lost 0; saves resume within 2 s of the replica",
		needs: need{sentinel: true, replicas: true},
		run: func(s *scene) {
			s.replicas = 1
			sentinelKilled(s)
		},
	},
}

func (s *scene) sentinel(args ...string) *redistest.Sentinel {
	s.tb.Helper()
	st := redistest.StartSentinel(s.tb, append(args, "--appendonly", "yes")...)
	s.url = st.URL()
	s.look(s.url)
	return st
}

// sentinelFailover's needsReplica tells that nothing goes on before the new master has one.
func sentinelFailover(s *scene, needsReplica bool, args ...string) {
	st := s.sentinel(args...)
	s.traffic(time.Duration(s.size(20, 12))*time.Second, trafficRate, actor.Order{})
	old := st.Master(s.tb)
	look, err := beequeue.Dial(s.ctx, old.URL(), func(o *rueidis.ClientOption) { o.ForceSingleClient = true })
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	defer look.Close()
	stays := func() bool { // an error is of the moment in which it is demoted
		list, err := look.Do(s.ctx, look.B().ClientList().TypeNormal().Build()).ToString()
		return err != nil || strings.Contains(list, "name="+clientName)
	}
	named := s.library.name == ours // only these can be told from others
	s.check(stays() || !named, "nobody was on the old master")
	began := time.Now()
	st.Failover(s.tb)
	at := time.Now()
	const most = 5500 * time.Millisecond
	left := began.Add(most)
	if named {
		gone := s.awaits(10*time.Second, func() bool { return !stays() })
		s.check(gone, "somebody stays on the demoted master")
		s.within(at, time.Now(), most, "nobody on the demoted master after")
		left = time.Now()
	}
	if needsReplica {
		s.resumed(s.replicated(st.Master(s.tb)), "with the replica")
	} else { // the old master takes writes until it is left, and they are lost
		accepted := max(s.between(began, left, actor.Saved), int(left.Sub(began).Seconds()*trafficRate))
		s.mayLose, s.lagging = accepted+trafficLines, true
		s.resumed(time.Now(), "")
	}
	s.drained()
	s.measure("%d doubled", s.doubles())
}

// clientName is what the processes call themselves to Redis.
const clientName = "chaos-" + queueName

func sentinelKilled(s *scene) {
	st := s.sentinel()
	s.traffic(time.Duration(s.size(20, 14))*time.Second, trafficRate, actor.Order{})
	old := st.Master(s.tb)
	began := time.Now()
	old.Kill()
	master := st.Master(s.tb)
	at := time.Now()
	s.measure("a new master after %s", seconds(at.Sub(began)))
	if s.replicas == 0 {
		s.resumed(at, "")
	} else {
		s.pass(3 * time.Second)
		old.Restart(s.tb)
		s.resumed(s.replicated(master), "with the replica")
	}
	s.drained()
	s.measure("%d doubled", s.doubles())
}
