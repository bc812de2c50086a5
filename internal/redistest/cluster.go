package redistest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const (
	masters   = 3
	slotCount = 16384
)

// Cluster is three masters and their three replicas.
type Cluster struct {
	Servers []*Server // masters first, as they were in the beginning
}

// Steady is an argument of [StartCluster]: a node counts as failed after half a minute.
const Steady = "--cluster-node-timeout 30000"

// StartClusterNode starts one server that is a cluster of its own: it owns all
// slots, and answers CROSSSLOT as a node of a larger one does. It takes Redis
// two seconds to declare a new cluster ready.
func StartClusterNode(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s := startNode(tb, args)
	s.Do(tb, "CLUSTER", "ADDSLOTSRANGE", "0", strconv.Itoa(slotCount-1))
	waitFor(tb, "a cluster of one", []*Server{s}, func() error { return s.clusterReady(1) })
	return s
}

// StartCluster starts six servers and waits until all of them see a complete
// cluster. A node counts as failed after two seconds of silence, which may happen on
// a busy machine: where no master is to fail, [Steady] belongs to args, which go to each
// server, as in [Start]. Nodes that are to be restarted need "--appendonly", "yes", or
// they come back empty and their replicas copy that.
func StartCluster(tb testing.TB, args ...string) *Cluster {
	tb.Helper()
	c := &Cluster{}
	for range 2 * masters {
		c.Servers = append(c.Servers, startNode(tb, args))
	}
	for i, s := range c.Servers {
		// Distinct epochs spare the nodes from settling conflicts.
		s.Do(tb, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
	}
	for i, s := range c.Servers[:masters] {
		first, last := i*slotCount/masters, (i+1)*slotCount/masters-1
		s.Do(tb, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
	}
	for i, s := range c.Servers {
		for _, other := range c.Servers[:i] { // all pairs: faster than gossip
			s.Do(tb, "CLUSTER", "MEET", host, strconv.Itoa(other.Port))
		}
	}
	waitFor(tb, "the nodes to meet", c.Servers, func() error {
		return c.everyServer(func(s *Server) error { return s.knows(2 * masters) })
	})
	for i, replica := range c.Servers[masters:] {
		_, master, err := c.Servers[i].nodes()
		if err != nil {
			tb.Fatalf("redistest: %v", err)
		}
		replica.Do(tb, "CLUSTER", "REPLICATE", master.id)
	}
	waitFor(tb, "the cluster", c.Servers, func() error {
		for i, replica := range c.Servers[masters:] {
			if err := c.knownReplica(replica, c.Servers[i]); err != nil {
				return err
			}
		}
		return c.everyServer(func(s *Server) error { return s.clusterReady(2 * masters) })
	})
	return c
}

func startNode(tb testing.TB, args []string) *Server {
	tb.Helper()
	defaults := []string{
		"--cluster-enabled", "yes",
		"--cluster-announce-ip", host,
		"--cluster-node-timeout", "2000",
		"--cluster-replica-validity-factor", "0", // a replica may always take over
	}
	return Start(tb, append(defaults, args...)...)
}

// URL returns the addresses of all nodes in the form that rueidis.ParseURL reads.
func (c *Cluster) URL() string { return manyURL(c.Addrs()) }

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string { return addrs(c.Servers) }

// MasterFor returns the running master that owns the slot of key. When that was
// killed or paused, it waits until a replica has taken over.
func (c *Cluster) MasterFor(tb testing.TB, key string) *Server {
	tb.Helper()
	slot := c.slot(tb, key)
	var owner *Server
	waitFor(tb, fmt.Sprintf("a master of slot %d", slot), c.Servers, func() error {
		owner = c.owner(slot)
		if owner == nil {
			return errors.New("no running node owns it")
		}
		return nil
	})
	return owner
}

// ReplicaOf returns the replica of master, and waits for one that runs.
func (c *Cluster) ReplicaOf(tb testing.TB, master *Server) *Server {
	tb.Helper()
	var found *Server
	waitFor(tb, "a replica of "+master.Addr, c.Servers, func() error {
		for _, s := range c.Servers {
			if !s.running() {
				continue
			}
			all, _, err := s.nodes()
			if err == nil && masterOf(all, s.Addr) == master.Addr {
				found = s
				return nil
			}
		}
		return errors.New("no running node replicates it")
	})
	return found
}

// Failover makes the replica take over from the master of key, both running, and
// waits until all nodes know and the old master replicates the new one.
//
// Do not kill a master that a second Failover has just put back: for four seconds
// its replica may, in Redis 7.0, count its votes from the first one. It then wins
// at once but with its old epoch, and loses the slots and what was written when
// the master comes back.
func (c *Cluster) Failover(tb testing.TB, key string) {
	tb.Helper()
	slot := c.slot(tb, key)
	old := c.MasterFor(tb, key)
	replica := c.ReplicaOf(tb, old)
	ask := func() error {
		// A master ignores a node that, as far as it has heard, is not its replica.
		if err := c.knownReplica(replica, old); err != nil {
			return err
		}
		_, err := replica.do("CLUSTER", "FAILOVER")
		return err
	}
	done := func() error {
		if err := c.knownOwner(slot, replica); err != nil {
			return err
		}
		return c.knownReplica(old, replica)
	}
	waitForFailover(tb, "the failover to "+replica.Addr, c.Servers, ask, done)
}

// slot returns the slot of key, which every node can compute.
func (c *Cluster) slot(tb testing.TB, key string) int64 {
	tb.Helper()
	for _, s := range c.Servers {
		if !s.running() {
			continue
		}
		slot, err := s.number("CLUSTER", "KEYSLOT", key)
		if err == nil {
			return slot
		}
		tb.Logf("redistest: slot of %q: %v", key, err)
	}
	tb.Fatalf("redistest: slot of %q: no node answers", key)
	return 0
}

// owner returns the running server that says it owns slot, or nil. Two of them say
// so when a failed master has just come back: the higher epoch is right.
func (c *Cluster) owner(slot int64) *Server {
	var owner *Server
	var epoch int64
	for _, s := range c.Servers {
		if !s.running() {
			continue
		}
		_, myself, err := s.nodes()
		if err != nil || !myself.is("master") || !myself.owns(slot) {
			continue
		}
		if owner == nil || myself.epoch > epoch {
			owner, epoch = s, myself.epoch
		}
	}
	return owner
}

// knownOwner checks that all nodes see slot at owner.
func (c *Cluster) knownOwner(slot int64, owner *Server) error {
	return c.everyServer(func(s *Server) error {
		all, _, err := s.nodes()
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.owns(slot) && n.addr == owner.Addr {
				return nil
			}
		}
		return fmt.Errorf("%s does not see slot %d at %s", s.Addr, slot, owner.Addr)
	})
}

// knownReplica checks that replica is in step with master and that all nodes know.
func (c *Cluster) knownReplica(replica, master *Server) error {
	err := c.everyServer(func(s *Server) error {
		all, _, err := s.nodes()
		if err != nil {
			return err
		}
		if got := masterOf(all, replica.Addr); got != master.Addr {
			return fmt.Errorf("%s sees %s as a replica of %q, not %s", s.Addr, replica.Addr, got, master.Addr)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return replica.linkUp()
}

// everyServer runs check for all servers that run, until one fails.
func (c *Cluster) everyServer(check func(*Server) error) error {
	for _, s := range c.Servers {
		if !s.running() {
			continue
		}
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

// knows checks that s is connected to a cluster of count nodes, itself included.
func (s *Server) knows(count int) error {
	all, _, err := s.nodes()
	if err != nil {
		return err
	}
	if len(all) != count {
		return fmt.Errorf("%s knows %d of %d nodes", s.Addr, len(all), count)
	}
	for _, n := range all {
		if n.is("handshake") || n.is("noaddr") || n.is("fail") || n.is("fail?") {
			return fmt.Errorf("%s sees %s as %s", s.Addr, n.addr, strings.Join(n.flags, ","))
		}
	}
	return nil
}

func (s *Server) clusterReady(count int) error {
	if err := s.knows(count); err != nil {
		return err
	}
	info, err := s.text("CLUSTER", "INFO")
	if err != nil {
		return err
	}
	if state := infoField(info, "cluster_state"); state != "ok" {
		return fmt.Errorf("%s says cluster_state:%s", s.Addr, state)
	}
	return nil
}

// linkUp checks that s is a replica in step with its master.
func (s *Server) linkUp() error {
	info, err := s.text("INFO", "replication")
	if err != nil {
		return err
	}
	if link := infoField(info, "master_link_status"); link != "up" {
		return fmt.Errorf("%s has a master link that is %q", s.Addr, link)
	}
	return nil
}

func addrs(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	return list
}

// manyURL writes redis://first?addr=second&addr=third.
func manyURL(addrs []string) string {
	return "redis://" + addrs[0] + "?addr=" + strings.Join(addrs[1:], "&addr=")
}
