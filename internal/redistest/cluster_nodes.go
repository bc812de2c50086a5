package redistest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// node is one line of CLUSTER NODES: what one node says of another or of itself.
type node struct {
	id     string
	addr   string
	flags  []string // myself, master, slave, fail?, fail, handshake, noaddr
	master string   // of a replica: the ID of its master
	epoch  int64
	slots  []slotRange
}

type slotRange struct{ first, last int64 }

func (n node) is(flag string) bool { return slices.Contains(n.flags, flag) }

func (n node) owns(slot int64) bool {
	return slices.ContainsFunc(n.slots, func(r slotRange) bool { return r.first <= slot && slot <= r.last })
}

// nodes returns the cluster as s sees it, and s's own entry.
func (s *Server) nodes() (all []node, myself node, err error) {
	text, err := s.text("CLUSTER", "NODES")
	if err != nil {
		return nil, node{}, err
	}
	all, err = parseNodes(text)
	if err != nil {
		return nil, node{}, err
	}
	for _, n := range all {
		if n.is("myself") {
			return all, n, nil
		}
	}
	return nil, node{}, fmt.Errorf("%s does not know itself", s.Addr)
}

// masterOf returns the address of the master of the replica at addr, or "" when it
// is none.
func masterOf(all []node, addr string) string {
	id := ""
	for _, n := range all {
		if n.addr == addr {
			id = n.master
		}
	}
	for _, n := range all {
		if id != "" && n.id == id {
			return n.addr
		}
	}
	return ""
}

// parseNodes reads lines of
//
//	<id> <ip:port@bus[,hostname]> <flags> <master> <ping> <pong> <epoch> <link> <slot>...
func parseNodes(text string) ([]node, error) {
	var all []node
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return nil, fmt.Errorf("unreadable line of CLUSTER NODES: %q", line)
		}
		addr, _, _ := strings.Cut(fields[1], "@")
		epoch, err := strconv.ParseInt(fields[6], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("unreadable line of CLUSTER NODES: %q: %w", line, err)
		}
		n := node{id: fields[0], addr: addr, flags: strings.Split(fields[2], ","), epoch: epoch}
		if fields[3] != "-" {
			n.master = fields[3]
		}
		for _, field := range fields[8:] {
			if strings.HasPrefix(field, "[") {
				continue // a slot on the move: [93-<-id] or [77->-id]
			}
			r, err := parseSlots(field)
			if err != nil {
				return nil, fmt.Errorf("unreadable line of CLUSTER NODES: %q: %w", line, err)
			}
			n.slots = append(n.slots, r)
		}
		all = append(all, n)
	}
	return all, nil
}

// parseSlots reads "7" or "0-5460".
func parseSlots(field string) (slotRange, error) {
	from, to, isRange := strings.Cut(field, "-")
	if !isRange {
		to = from
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return slotRange{}, err
	}
	last, err := strconv.ParseInt(to, 10, 64)
	return slotRange{first, last}, err
}
