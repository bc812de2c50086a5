package redistest

import (
	"errors"
	"strconv"
	"testing"
)

const migrateBatch = 100

// MigrateSlot moves the slot of key with all its keys to another master and waits
// until all nodes know. It calls pause, which may be nil, when half of the keys
// have moved: until pause returns, the old master answers ASK for the keys that
// are gone and TRYAGAIN for commands on keys of both halves.
func (c *Cluster) MigrateSlot(tb testing.TB, key string, pause func()) {
	tb.Helper()
	slot := c.slot(tb, key)
	source := c.MasterFor(tb, key)
	target := c.otherMaster(tb, source)
	sourceID, targetID := nodeID(tb, source), nodeID(tb, target)
	setSlot := func(s *Server, args ...string) {
		tb.Helper()
		s.Do(tb, append([]string{"CLUSTER", "SETSLOT", strconv.FormatInt(slot, 10)}, args...)...)
	}

	setSlot(target, "IMPORTING", sourceID)
	setSlot(source, "MIGRATING", targetID)
	total, err := source.number("CLUSTER", "COUNTKEYSINSLOT", strconv.FormatInt(slot, 10))
	if err != nil {
		tb.Fatalf("redistest: count the keys of slot %d: %v", slot, err)
	}
	for left := total / 2; left > 0; {
		moved := moveKeys(tb, slot, source, target, min(left, migrateBatch))
		if moved == 0 {
			break // someone deleted the rest
		}
		left -= moved
	}
	if pause != nil {
		pause()
	}
	for moveKeys(tb, slot, source, target, migrateBatch) > 0 {
		// until no key is left, whoever made it
	}

	// The target first: should it not hear of the slot's new owner from the
	// source, nobody would own it.
	setSlot(target, "NODE", targetID)
	setSlot(source, "NODE", targetID)
	for _, s := range c.Servers {
		if s == source || s == target || !s.running() {
			continue
		}
		if _, myself, err := s.nodes(); err == nil && myself.is("master") {
			setSlot(s, "NODE", targetID)
		}
	}
	waitFor(tb, "all nodes to know", c.Servers, func() error { return c.knownOwner(slot, target) })
}

// moveKeys moves up to count keys of slot and returns how many there were.
func moveKeys(tb testing.TB, slot int64, source, target *Server, count int64) int64 {
	tb.Helper()
	message := source.Do(tb, "CLUSTER", "GETKEYSINSLOT", strconv.FormatInt(slot, 10), strconv.FormatInt(count, 10))
	keys, err := message.AsStrSlice()
	if err != nil {
		tb.Fatalf("redistest: keys of slot %d: %v", slot, err)
	}
	if len(keys) > 0 {
		migrate := []string{"MIGRATE", host, strconv.Itoa(target.Port), "", "0", "5000", "KEYS"}
		source.Do(tb, append(migrate, keys...)...)
	}
	return int64(len(keys))
}

// otherMaster returns a running master that is not s.
func (c *Cluster) otherMaster(tb testing.TB, s *Server) *Server {
	tb.Helper()
	var found *Server
	waitFor(tb, "a second master", c.Servers, func() error {
		for _, other := range c.Servers {
			if other == s || !other.running() {
				continue
			}
			if _, myself, err := other.nodes(); err == nil && myself.is("master") && len(myself.slots) > 0 {
				found = other
				return nil
			}
		}
		return errors.New("none runs")
	})
	return found
}

func nodeID(tb testing.TB, s *Server) string {
	tb.Helper()
	id, err := s.text("CLUSTER", "MYID")
	if err != nil {
		tb.Fatalf("redistest: ID of %s: %v%s", s.Addr, err, logTails([]*Server{s}))
	}
	return id
}
