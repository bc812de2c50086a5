package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// usage is what somebody holds at a moment.
type usage map[string]float64

// The figures that must not grow, and what they may vary by: a part, and an amount.
var soakFigures = []struct {
	name         string
	part, amount float64
	unit         float64 // that is printed
}{
	{"goroutines", 0.2, 10, 1},
	{"heap, MiB", 0.3, 4 << 20, 1 << 20},
	{"sockets", 0.2, 3, 1},
	{"memory, MiB", 0.2, 4 << 20, 1 << 20},
	{"connections", 0.2, 5, 1},
}

// sample takes note of what Redis holds. Processes tell of themselves.
func (k *soak) sample() {
	u := make(usage)
	for _, section := range []string{"memory", "clients"} {
		info, err := k.do("INFO", section).ToString()
		if err != nil {
			return // it is away
		}
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			n, _ := strconv.ParseFloat(value, 64)
			switch name {
			case "used_memory":
				u["memory, MiB"] = n
			case "connected_clients":
				u["connections"] = n
			}
		}
	}
	k.memory = append(k.memory, u)
}

// judge compares the end with the beginning, and counts the jobs.
func (k *soak) judge() {
	k.tb.Helper()
	total, words := 0, []string(nil)
	for _, name := range slices.Sorted(maps.Keys(k.faults)) {
		total += k.faults[name]
		words = append(words, name+" "+strconv.Itoa(k.faults[name]))
	}
	k.tell("half of it for %v, %d faults: %s", k.length, total, strings.Join(words, ", "))
	for _, p := range k.steady {
		var all []usage
		for _, e := range p.entries() {
			if e.What == actor.Stat {
				all = append(all, usage{"goroutines": float64(e.Goroutines), "heap, MiB": float64(e.Heap), "sockets": float64(e.Connections)})
			}
		}
		k.flat("the steady "+p.name, all)
	}
	k.flat("redis-server", k.memory)

	saved, lost, doubled, runs := 0, 0, 0, 0
	for i := range k.tally.Len() {
		saves, ends := k.tally.Of(i)
		runs += ends
		if saves > 0 {
			saved++
		}
		if saves > 0 && ends == 0 {
			lost++
		}
		if ends > 1 {
			doubled++
		}
	}
	unlike := 0
	for _, p := range k.processes {
		unlike += p.count(actor.Refused)
	}
	k.tell("%d saved, %d lost, %d run more than once of %d runs, %d saves refused and made again; %d failed",
		saved, lost, doubled, runs, unlike, k.watch.count("failed"))
	k.check(saved > 0, "nothing was saved")
	k.check(lost == 0, "lost %d", lost)
	k.check(doubled <= 10*total, "%d run more than once, at most what two workers have in their hands at each fault", doubled)
	k.check(k.watch.count("failed") == 0, "%d failed", k.watch.count("failed"))
	k.check(len(k.watch.seenTwice()) == 0, "ids were in two states: %v", k.watch.seenTwice())
}

// flat checks that what was held in the last fifth of the time is no more than in the
// first. Of each fifth, the median counts; of memory, which the backlog after a fault
// takes as well, the least.
func (k *soak) flat(who string, all []usage) {
	k.tb.Helper()
	fifth := len(all) / 5
	if fifth == 0 {
		k.check(false, "%s told %d times what it holds", who, len(all))
		return
	}
	for _, f := range soakFigures {
		if _, has := all[0][f.name]; !has {
			continue
		}
		typical := func(some []usage) float64 {
			var values []float64
			for _, u := range some {
				values = append(values, u[f.name])
			}
			slices.Sort(values)
			if f.name == "memory, MiB" {
				return values[0]
			}
			return values[len(values)/2]
		}
		first, last := typical(all[:fifth]), typical(all[len(all)-fifth:])
		k.tell("%s: %s %.1f in the first fifth, %.1f in the last", who, f.name, first/f.unit, last/f.unit)
		k.check(last <= first*(1+f.part)+f.amount, "%s: %s has grown from %.1f to %.1f", who, f.name, first/f.unit, last/f.unit)
	}
}
