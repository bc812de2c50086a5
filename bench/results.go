package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results are the samples of one run, by workload and peer.
type results struct {
	Date     string                         `json:"date"`
	Machine  string                         `json:"machine"`
	Versions string                         `json:"versions"`
	Missing  map[string]string              `json:"missing,omitempty"` // peers that were not measured, and why
	Samples  map[string]map[string][]sample `json:"samples"`
}

func newResults() *results {
	return &results{
		Date:     time.Now().UTC().Format(time.DateOnly),
		Machine:  machine(),
		Versions: versions(),
		Missing:  make(map[string]string),
		Samples:  make(map[string]map[string][]sample),
	}
}

func machine() string {
	name := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				name = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s", name, runtime.NumCPU(), runtime.GOOS)
}

func versions() string {
	list := []string{strings.Replace(runtime.Version(), "go", "Go ", 1)}
	for _, command := range [][]string{{"redis-server", "--version"}, {"node", "--version"}, {"psql", "--version"}} {
		if out, err := exec.Command(command[0], command[1:]...).Output(); err == nil {
			text := strings.TrimSpace(string(out))
			if _, v, ok := strings.Cut(text, " v="); ok {
				text = "Redis " + strings.Fields(v)[0]
			} else if v, ok := strings.CutPrefix(text, "v"); ok {
				text = "Node " + v
			} else if fields := strings.Fields(text); len(fields) > 2 {
				text = "PostgreSQL " + fields[2]
			}
			list = append(list, text)
		}
	}
	return strings.Join(list, ", ")
}

func (r *results) add(workload, peer string, s sample) {
	if r.Samples[workload] == nil {
		r.Samples[workload] = make(map[string][]sample)
	}
	r.Samples[workload][peer] = append(r.Samples[workload][peer], s)
}

func (r *results) write(name string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644) //nolint:gosec // for everybody
}

func readResults(name string) (*results, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// figure is one column of a sample.
type figure func(sample) float64

var (
	rate         figure = func(s sample) float64 { return s.Rate }
	redisCPU     figure = func(s sample) float64 { return s.RedisCPU }
	commands     figure = func(s sample) float64 { return s.Commands }
	bytesPerJob  figure = func(s sample) float64 { return s.Bytes }
	clientCPU    figure = func(s sample) float64 { return s.CPU }
	allocs       figure = func(s sample) float64 { return s.Allocs }
	memory       figure = func(s sample) float64 { return s.Memory }
	startP50     figure = func(s sample) float64 { return s.StartP50 }
	startP99     figure = func(s sample) float64 { return s.StartP99 }
	resultP50    figure = func(s sample) float64 { return s.ResultP50 }
	resultP99    figure = func(s sample) float64 { return s.ResultP99 }
	idleCommands figure = func(s sample) float64 { return s.IdleCommands }
	connections  figure = func(s sample) float64 { return s.Connections }
	idleCPU      figure = func(s sample) float64 { return s.RedisCPU }
)

// median is the median of a figure over the rounds; false if there are none.
func (r *results) median(workload, peer string, f figure) (float64, bool) {
	var values []float64
	for _, s := range r.Samples[workload][peer] {
		values = append(values, f(s))
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// workloads are those measured, in the order of the plan.
func (r *results) workloads() []string {
	var names []string
	for _, w := range plan() {
		if r.Samples[w.name] != nil {
			names = append(names, w.name)
		}
	}
	return names
}

// isIdle tells whether a workload is one without a rate: mostly, nothing is done.
func isIdle(workload string) bool { return strings.HasPrefix(workload, "idle") }

func (r *results) peers() []string {
	seen := make(map[string]bool)
	for _, peers := range r.Samples {
		for name := range maps.Keys(peers) {
			seen[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(everyPeer), func(name string) bool { return !seen[name] })
}

// table is one of the tables, as Markdown.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	line := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i == 0 {
				fmt.Fprintf(w, "| %s%s |", cell, pad)
			} else {
				fmt.Fprintf(w, " %s%s |", pad, cell)
			}
		}
		fmt.Fprintln(w)
	}
	line(t.head)
	for i := range t.head {
		if i == 0 {
			fmt.Fprintf(w, "|%s|", strings.Repeat("-", width[i]+2))
		} else {
			fmt.Fprintf(w, "%s:|", strings.Repeat("-", width[i]+1))
		}
	}
	fmt.Fprintln(w)
	for _, row := range t.rows {
		line(row)
	}
}

// short writes a number with three digits that mean something.
func short(v float64) string {
	switch {
	case v >= 100_000:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v >= 1_000:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// throughput has jobs a second: ours and Bee-Queue's in full, the others as
// multiples of Bee-Queue's.
func (r *results) throughput() *table {
	peers := r.peers()
	t := &table{head: append([]string{"jobs/s (× bee-queue)"}, peers...)}
	for _, w := range r.workloads() {
		row := []string{w}
		base, _ := r.median(w, beeQueue, rate)
		some := false
		for _, peer := range peers {
			v, ok := r.median(w, peer, rate)
			switch {
			case !ok || v == 0:
				row = append(row, "-")
				continue
			case base == 0 || peer == beeQueue:
				row = append(row, short(v))
			default:
				row = append(row, fmt.Sprintf("%s (%.2g)", short(v), v/base))
			}
			some = true
		}
		if some && !isIdle(w) {
			t.add(row...)
		}
	}
	return t
}

// summary is the README's table: jobs/s at the main workloads.
func (r *results) summary() *table {
	all := r.throughput()
	t := &table{head: all.head}
	for _, row := range all.rows {
		if slices.Contains(mainWorkloads, row[0]) {
			t.rows = append(t.rows, row)
		}
	}
	return t
}

// costs has what one job costs at a workload.
func (r *results) costs(workload string) *table {
	t := &table{head: []string{"per job, " + workload}}
	for _, peer := range r.peers() {
		if r.Samples[workload][peer] != nil {
			t.head = append(t.head, peer)
		}
	}
	for _, line := range []struct {
		name string
		f    figure
	}{
		{"Redis CPU, µs", redisCPU},
		{"Redis commands", commands},
		{"bytes to and from Redis", bytesPerJob},
		{"client CPU, µs", clientCPU},
		{"client allocations", allocs},
		{"max RSS, MiB", memory},
	} {
		row := []string{line.name}
		for _, peer := range t.head[1:] {
			v, _ := r.median(workload, peer, line.f)
			if v == 0 {
				row = append(row, "-")
			} else {
				row = append(row, short(v))
			}
		}
		t.add(row...)
	}
	return t
}

func (r *results) latency() *table {
	const w = "idle latency"
	t := &table{head: []string{"idle worker, µs", "start p50", "start p99", "result p50", "result p99"}}
	for _, peer := range r.peers() {
		if r.Samples[w][peer] == nil {
			continue
		}
		row := []string{peer}
		for _, f := range []figure{startP50, startP99, resultP50, resultP99} {
			if v, _ := r.median(w, peer, f); v > 0 {
				row = append(row, fmt.Sprintf("%.0f", v))
			} else {
				row = append(row, "-")
			}
		}
		t.add(row...)
	}
	return t
}

func (r *results) idle() *table {
	t := &table{head: []string{"idle worker, concurrency 50", "commands/s", "Redis CPU, µs/s", "connections", "max RSS, MiB"}}
	for _, w := range []string{"idle", "idle, 1,000,000 delayed"} {
		for _, peer := range r.peers() {
			if r.Samples[w][peer] == nil {
				continue
			}
			row := []string{peer + strings.TrimPrefix(w, "idle")}
			for _, f := range []figure{idleCommands, idleCPU, connections, memory} {
				v, _ := r.median(w, peer, f)
				row = append(row, short(v))
			}
			t.add(row...)
		}
	}
	return t
}

// origin says where and when the figures were measured.
func (r *results) origin() string {
	text := fmt.Sprintf("%s; %s; %s; medians of %d rounds.", r.Date, r.Machine, r.Versions, r.rounds())
	for _, name := range slices.Sorted(maps.Keys(r.Missing)) {
		text += fmt.Sprintf(" Without %s: %s.", name, r.Missing[name])
	}
	return text
}

// rounds is how often the workload was measured that was measured least.
func (r *results) rounds() int {
	least := 0
	for _, peers := range r.Samples {
		for _, samples := range peers {
			if least == 0 || len(samples) < least {
				least = len(samples)
			}
		}
	}
	return least
}

func (r *results) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", r.origin())
	tables := []*table{r.throughput(), r.costs("drain 50"), r.costs("save"), r.costs("drain 1"), r.latency(), r.idle(), r.targets()}
	for _, t := range tables {
		if len(t.rows) > 0 && len(t.head) > 1 {
			t.write(w)
			fmt.Fprintln(w)
		}
	}
}
