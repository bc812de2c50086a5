package main

import "fmt"

// target is one promise about the figures.
type target struct {
	name  string
	value func(*results) (float64, bool)
	most  bool // the value may be at most the bound; else it must be at least
	bound float64
	unit  string
}

// value is ours at a workload.
func value(workload string, f figure) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) { return r.median(workload, ours, f) }
}

// ratio compares ours with a peer's.
func ratio(workload, peer string, f figure) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		a, okA := r.median(workload, ours, f)
		b, okB := r.median(workload, peer, f)
		return a / b, okA && okB && b > 0
	}
}

// across compares ours at two workloads.
func across(workload, other string, f figure) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		a, okA := r.median(workload, ours, f)
		b, okB := r.median(other, ours, f)
		return a / b, okA && okB && b > 0
	}
}

// targetList is what we mean to reach on a machine of two cores.
func targetList() []target {
	var list []target
	add := func(name string, v func(*results) (float64, bool), most bool, bound float64, unit string) {
		list = append(list, target{name, v, most, bound, unit})
	}
	for _, p := range []struct {
		workload       string
		ofBee, ofLIMIT float64
	}{
		{"save", 3, 0.85},
		{"bulk save", 3.6, 0.85},
		{"drain 1", 2.6, 0.8},
		{"drain 10", 4, 0.8},
		{"drain 50", 6, 0.8},
		{"drain 200", 9, 0.8},
		{"end to end 5", 3, 0.8},
		{"end to end 20", 4.5, 0.8},
		{"end to end 50", 4.5, 0.8},
	} {
		add(p.workload+", × bee-queue", ratio(p.workload, beeQueue, rate), false, p.ofBee, "")
		add(p.workload+", of LIMIT", ratio(p.workload, limit, rate), false, p.ofLIMIT, "")
	}
	add("result p50, × bee-queue", ratio("idle latency", beeQueue, resultP50), true, 1.15, "")
	add("result p99, × bee-queue", ratio("idle latency", beeQueue, resultP99), true, 0.25, "")
	add("start p99", value("idle latency", startP99), true, 500, " µs")

	add("drain 50, Redis CPU", value("drain 50", redisCPU), true, 7, " µs")
	add("drain 50, commands", value("drain 50", commands), true, 3, "")
	add("drain 50, bytes", value("drain 50", bytesPerJob), true, 300, "")
	add("drain 50, client CPU", value("drain 50", clientCPU), true, 12, " µs")
	add("drain 50, max RSS", value("drain 50", memory), true, 25, " MiB")

	add("1,000,000 waiting, cost × 1,000's", across("drain 50, 1,000,000 more waiting", "drain 50, 1,000 more waiting", redisCPU), true, 1.3, "")
	add("5,000 others active, cost × none's", across("drain 50, 5,000 others active", "drain 50, 0 others active", redisCPU), true, 1.5, "")
	add("50,000 others active, cost × none's", across("drain 50, 50,000 others active", "drain 50, 0 others active", redisCPU), true, 3, "")
	add("4 processes, throughput × one's", across("drain 50, processes: 4", "drain 50, processes: 1", rate), false, 1, "")
	add("4 processes, commands × one's", across("drain 50, processes: 4", "drain 50, processes: 1", commands), true, 2, "")

	add("idle, commands a second", value("idle", idleCommands), true, 2, "")
	add("idle, connections", value("idle", connections), true, 3, "")
	add("idle with 1,000,000 delayed, commands a second", value("idle, 1,000,000 delayed", idleCommands), true, 2, "")
	add("points where a peer is ahead", behind, true, 0, "")
	return list
}

// behind counts the points at which a peer is faster.
func behind(r *results) (float64, bool) {
	points, some := 0, false
	for _, w := range r.workloads() {
		own, ok := r.median(w, ours, rate)
		if !ok || isIdle(w) {
			continue
		}
		for _, peer := range r.peers() {
			if v, ok := r.median(w, peer, rate); ok && peer != ours && peer != limit {
				some = true
				if v > own {
					points++
				}
			}
		}
	}
	return float64(points), some
}

// targets compares the figures with what we mean to reach.
func (r *results) targets() *table {
	t := &table{head: []string{"target", "is", "wanted", ""}}
	for _, g := range targetList() {
		v, ok := g.value(r)
		if !ok {
			continue
		}
		sign, met := "≥", v >= g.bound
		if g.most {
			sign, met = "≤", v <= g.bound
		}
		verdict := "met"
		if !met {
			verdict = "MISSED"
		}
		t.add(g.name, short(v)+g.unit, fmt.Sprintf("%s %v%s", sign, g.bound, g.unit), verdict)
	}
	return t
}
