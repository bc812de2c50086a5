package redistest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
)

const (
	masterSet     = "redistest"
	sentinelCount = 3
)

// Sentinel is a master and a replica that three Sentinels watch.
type Sentinel struct {
	Servers   []*Server // the first is the master in the beginning
	Sentinels []*Server
}

// StartSentinel starts the five processes and waits until every Sentinel knows the
// others and the replica. A master counts as down after three seconds of silence: less
// is not unheard of on a busy machine. args go to the master and the replica, as in
// [Start].
func StartSentinel(tb testing.TB, args ...string) *Sentinel {
	tb.Helper()
	master, replica := Start(tb, args...), Start(tb, args...)
	s := &Sentinel{Servers: []*Server{master, replica}}
	replica.Do(tb, "REPLICAOF", host, strconv.Itoa(master.Port))
	waitFor(tb, "the replica", s.Servers, replica.linkUp)

	settings := []string{
		fmt.Sprintf("--sentinel monitor %s %s %d %d", masterSet, host, master.Port, sentinelCount/2+1),
		fmt.Sprintf("--sentinel down-after-milliseconds %s 3000", masterSet),
		fmt.Sprintf("--sentinel failover-timeout %s 5000", masterSet),
	}
	for range sentinelCount {
		sentinel := start(tb, nil, []string{"--sentinel"}, settings)
		// With the default of a ping per second, a second of silence after each
		// reconnect is normal; roles are asked for only every ten seconds.
		sentinel.Do(tb, "SENTINEL", "DEBUG", "ping-period", "200", "info-period", "1000")
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	waitFor(tb, "the Sentinels", s.all(), func() error { return s.settled(master) })
	return s
}

// URL returns the Sentinels' addresses and the name of the master set in the form
// that rueidis.ParseURL reads.
func (s *Sentinel) URL() string {
	return manyURL(addrs(s.Sentinels)) + "&master_set=" + masterSet
}

// Master returns the running master that all Sentinels agree on. When the master
// was killed or paused, it waits until the replica has taken over.
func (s *Sentinel) Master(tb testing.TB) *Server {
	tb.Helper()
	var master *Server
	waitFor(tb, "a master", s.all(), func() (err error) {
		master, err = s.master()
		return err
	})
	return master
}

// Failover makes the replica take over from the master and waits until all
// Sentinels know. It returns before they have told the old master, which takes
// them about ten seconds: until then it accepts writes, and loses them. For the
// same reason a second Failover first waits that long.
func (s *Sentinel) Failover(tb testing.TB) {
	tb.Helper()
	old := s.Master(tb)
	ask := func() error {
		if err := s.settled(old); err != nil {
			return err
		}
		for _, sentinel := range s.Sentinels {
			if sentinel.running() {
				_, err := sentinel.do("SENTINEL", "FAILOVER", masterSet)
				return err
			}
		}
		return errors.New("no Sentinel runs")
	}
	done := func() error {
		master, err := s.master()
		if err == nil && master == old {
			return fmt.Errorf("%s is still the master", old.Addr)
		}
		return err
	}
	waitForFailover(tb, "a new master", s.all(), ask, done)
}

func (s *Sentinel) all() []*Server {
	return append(append([]*Server{}, s.Servers...), s.Sentinels...)
}

// master returns the server that all running Sentinels call the master, if it
// runs and says so too.
func (s *Sentinel) master() (*Server, error) {
	agreed := ""
	for _, sentinel := range s.Sentinels {
		if !sentinel.running() {
			continue
		}
		message, err := sentinel.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterSet)
		if err != nil {
			return nil, err
		}
		parts, err := message.AsStrSlice()
		if err != nil || len(parts) != 2 {
			return nil, fmt.Errorf("%s gives the master as %v: %w", sentinel.Addr, parts, err)
		}
		addr := net.JoinHostPort(parts[0], parts[1])
		if agreed != "" && addr != agreed {
			return nil, fmt.Errorf("the Sentinels do not agree: %s and %s", agreed, addr)
		}
		agreed = addr
	}
	for _, server := range s.Servers {
		if server.Addr != agreed {
			continue
		}
		info, err := server.text("INFO", "replication")
		if err != nil {
			return nil, err
		}
		if role := infoField(info, "role"); role != "master" {
			return nil, fmt.Errorf("%s is a %s", server.Addr, role)
		}
		return server, nil
	}
	return nil, errors.New("no Sentinel runs")
}

// settled checks that each Sentinel that runs is ready for a failover: it knows the other
// Sentinels and has seen the replica in step with master. One that has not would
// undo the failover.
func (s *Sentinel) settled(master *Server) error {
	for _, sentinel := range s.Sentinels {
		if !sentinel.running() {
			continue
		}
		if err := sentinel.watches(master); err != nil {
			return fmt.Errorf("%s: %w", sentinel.Addr, err)
		}
	}
	return nil
}

func (s *Server) watches(master *Server) error {
	message, err := s.do("SENTINEL", "MASTER", masterSet)
	if err != nil {
		return err
	}
	seen, err := message.AsStrMap()
	if err != nil {
		return err
	}
	if err := differs(seen, map[string]string{
		"flags":               "master",
		"port":                strconv.Itoa(master.Port),
		"num-other-sentinels": strconv.Itoa(sentinelCount - 1),
	}); err != nil {
		return fmt.Errorf("master: %w", err)
	}
	message, err = s.do("SENTINEL", "REPLICAS", masterSet)
	if err != nil {
		return err
	}
	replicas, err := message.ToArray()
	if err != nil {
		return err
	}
	if len(replicas) != 1 {
		return fmt.Errorf("%d replicas instead of one", len(replicas))
	}
	seen, err = replicas[0].AsStrMap()
	if err != nil {
		return err
	}
	if err := differs(seen, map[string]string{
		"flags":              "slave",
		"role-reported":      "slave",
		"master-port":        strconv.Itoa(master.Port),
		"master-link-status": "ok",
	}); err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	return nil
}

func differs(got, want map[string]string) error {
	for name, value := range want {
		if got[name] != value {
			return fmt.Errorf("%s is %q instead of %q", name, got[name], value)
		}
	}
	return nil
}
