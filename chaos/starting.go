package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

const startBound = "resumes within 2 s of the fault's end; meanwhile < 5 % CPU, at most a line of log a second"

// Faults during which workers are started.
var startScenarios = []scenario{
	{name: "start-read-only", fault: "started on a read-only replica, promoted later", bound: startBound, run: startReadOnly},
	{name: "start-loading", fault: "started while Redis is down, and loads its data", bound: startBound, run: startLoading},
	{name: "start-denied", fault: "started with an ACL that denies everything", bound: startBound, run: startDenied},
	{name: "start-password", fault: "started with a wrong password", bound: startBound, run: startPassword},
	{name: "start-dns", fault: "started while the name does not resolve", bound: startBound, run: startDNS},
	{name: "turned-read-only", fault: "a running worker's server turned into a replica, and back", bound: "resumes within 2 s of the fault's end", run: turnedReadOnly},
}

// startsIn starts two workers during a fault, and ends it. What they cost meanwhile is
// taken when they have had time to slow down.
func (s *scene) startsIn(o actor.Order, end func()) {
	o.Log = true
	both := []*process{s.work(o), s.work(o)}
	for _, p := range both {
		s.awaits(s.patience, func() bool { return p.stderr.count() > 0 || p.exited() })
	}
	s.pass(time.Duration(s.size(2000, 1500)) * time.Millisecond)
	began, before := time.Now(), s.lines(both)
	s.calm(both, time.Duration(s.size(5, 3))*time.Second)
	passed := time.Since(began).Seconds()
	perSecond := float64(s.lines(both)-before) / passed / float64(len(both))
	s.measure("%.1f lines/s", perSecond)
	s.checkPace(perSecond <= 1+1/passed, "%.1f lines of log a second", perSecond) // three in 2 s: at 0 s, 1 s, 2 s
	s.check(s.lines(both) > 0, "nobody was told")
	end()
	at := time.Now()
	for _, p := range both {
		var first time.Time
		s.await("a worker's first job", func() bool {
			s.check(!p.exited() || s.library.name != ours, "a worker ended: %s", p.stderr.headline())
			for _, e := range p.entries() {
				if e.What == actor.Start && first.IsZero() {
					first = e.Time()
				}
			}
			return !first.IsZero() || p.exited()
		})
		if first.IsZero() {
			s.check(false, "a worker had ended: %s", p.stderr.headline())
			continue
		}
		s.within(at, first, resume, "its first job after")
	}
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
}

// lines counts what processes have logged.
func (s *scene) lines(all []*process) int {
	n := 0
	for _, p := range all {
		n += p.stderr.count()
	}
	return n
}

// backlog is enough for both workers to get something.
func (s *scene) backlog() { s.fill(s.size(3000, 2000), actor.Job{Ms: 10}) }

func startReadOnly(s *scene) {
	master := s.redis()
	s.backlog()
	replica := redistest.Start(s.tb, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port))
	s.await("the replica", func() bool {
		message := replica.Do(s.tb, "INFO", "replication")
		info, err := message.ToString()
		return err == nil && strings.Contains(info, "master_link_status:up") && replicaHas(s, replica)
	})
	s.watch.close()
	s.direct.Close()
	s.look(replica.URL())
	s.url = replica.URL()
	s.startsIn(actor.Order{}, func() { replica.Do(s.tb, "REPLICAOF", "NO", "ONE") })
}

func replicaHas(s *scene, replica *redistest.Server) bool {
	message := replica.Do(s.tb, "EXISTS", s.library.layout.prefix+s.library.layout.lists[0])
	n, err := message.AsInt64()
	return err == nil && n == 1
}

func startLoading(s *scene) {
	const keys, delay = 1000, 2 * time.Millisecond
	server := s.redis("--key-load-delay", strconv.Itoa(int(delay.Microseconds())), "--loading-process-events-interval-bytes", "1024")
	s.backlog()
	for i := range keys {
		s.must("SET", "other"+strconv.Itoa(i), strings.Repeat("x", 100))
	}
	s.must("BGREWRITEAOF")
	s.await("the rewrite", func() bool {
		message := server.Do(s.tb, "INFO", "persistence")
		info, err := message.ToString()
		return err == nil && strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_last_bgrewrite_status:ok")
	})
	server.Kill()
	s.startsIn(actor.Order{}, func() {
		began := time.Now()
		server.Restart(s.tb)
		s.measure("loading took %s", seconds(time.Since(began)))
		s.check(time.Since(began) > time.Second, "it has hardly loaded")
	})
}

func startDenied(s *scene) {
	server := s.redis()
	s.backlog()
	server.Do(s.tb, "ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "-@all", "+ping")
	s.startsIn(actor.Order{URL: "redis://limited:secret@" + server.Addr}, func() {
		server.Do(s.tb, "ACL", "SETUSER", "limited", "+@all")
	})
}

func startPassword(s *scene) {
	server := s.redis()
	s.backlog()
	server.Do(s.tb, "ACL", "SETUSER", "worker", "on", ">other", "~*", "&*", "+@all")
	s.startsIn(actor.Order{URL: "redis://worker:secret@" + server.Addr}, func() {
		server.Do(s.tb, "ACL", "SETUSER", "worker", ">secret")
	})
}

func startDNS(s *scene) {
	server := s.redis()
	s.backlog()
	names := startNames(s)
	s.startsIn(actor.Order{
		URL: fmt.Sprintf("redis://redis.chaos.test:%d", server.Port), DNS: names.conn.LocalAddr().String(),
	}, func() { names.known.Store(true) })
}

// turnedReadOnly is what happens to a worker whose master was demoted.
func turnedReadOnly(s *scene) {
	server := s.redis()
	other := redistest.Start(s.tb)
	s.traffic(time.Duration(s.size(14, 10))*time.Second, 200, actor.Order{})
	// A replica of something that is no master: it keeps its data and refuses writes.
	other.Kill()
	server.Do(s.tb, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port))
	s.breaks(4 * time.Second)
	server.Do(s.tb, "REPLICAOF", "NO", "ONE")
	s.resumed(time.Now(), "")
	s.drained()
	s.mostRuns("doubled", s.doubles(), 0)
}

// names is a name server that knows no name until it is told to know all.
type names struct {
	conn  net.PacketConn
	known atomic.Bool
}

func startNames(s *scene) *names {
	s.tb.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	n := &names{conn: conn}
	ended := make(chan struct{})
	s.tb.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buffer := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer, err := n.answer(buffer[:size]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return n
}

func (n *names) answer(request []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(request); err != nil {
		return nil, err
	}
	message.Response, message.RecursionAvailable, message.Additionals = true, true, nil
	if !n.known.Load() {
		message.RCode = dnsmessage.RCodeNameError
		return message.Pack()
	}
	for _, q := range message.Questions {
		if q.Type == dnsmessage.TypeA {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	return message.Pack()
}
