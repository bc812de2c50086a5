package main

import (
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A result is what came of a scenario with a library.
type result struct {
	scenario scenario
	library  string
	skipped  string
	verdict  verdict
	measures []string
	problems []string
	delays   []string
	took     time.Duration
}

func (r result) ok() bool { return r.skipped == "" && len(r.problems) == 0 && len(r.delays) == 0 }

// word is the last column but one.
func (r result) word() string {
	switch {
	case r.skipped != "":
		return "-"
	case r.ok():
		return "ok"
	}
	return "NOT OK"
}

// why is what did not hold, or why it was not tried, on one line.
func (r result) why() string {
	if r.skipped != "" {
		return r.skipped
	}
	return strings.ReplaceAll(strings.Join(append(slices.Clone(r.problems), r.delays...), "; "), "\n", " ")
}

// columns are the figures of a result.
var columns = []struct {
	name string
	of   func(v verdict) int
}{
	{"saved", func(v verdict) int { return v.saved }},
	{"refused", func(v verdict) int { return v.refused }},
	{"unsure", func(v verdict) int { return v.unsure }},
	{"lost", func(v verdict) int { return v.lost }},
	{"stranded", func(v verdict) int { return v.stranded }},
	{"failed", func(v verdict) int { return v.failed }},
	{"rerun", func(v verdict) int { return v.reruns }},
	{"doubled", func(v verdict) int { return v.doubled }},
	{"2 ids", func(v verdict) int { return v.twoIDs }},
	{"2 states", func(v verdict) int { return v.twoStates }},
	{"ghosts", func(v verdict) int { return v.ghosts }},
	{"orphans", func(v verdict) int { return v.orphans }},
}

// header begins the table.
func header(w io.Writer) {
	fmt.Fprint(w, "| fault | library |")
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.name)
	}
	fmt.Fprint(w, "  | seen; **what did not hold** |\n|---|---|")
	fmt.Fprint(w, strings.Repeat("--:|", len(columns)), "---|---|\n")
}

// row writes a result as a row of the table, in Markdown.
func (r result) row(w io.Writer) {
	fmt.Fprintf(w, "| %s | %s |", r.scenario.fault, r.library)
	for _, c := range columns {
		if r.skipped != "" {
			fmt.Fprint(w, " |")
		} else {
			fmt.Fprintf(w, " %d |", c.of(r.verdict))
		}
	}
	seen := r.measures
	if r.skipped != "" {
		seen = []string{r.skipped}
	}
	if !r.ok() && r.skipped == "" {
		seen = append(seen, "**"+r.why()+"**")
	}
	text := strings.NewReplacer("|", `\|`, "\n", " ").Replace(strings.ToValidUTF8(strings.Join(seen, "; "), "?"))
	fmt.Fprintf(w, " %s | %s |\n", r.word(), text)
}

// page is a document with the table of a run.
func page(table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Breaking things: a full run

Made by `+"`make chaos-compare`"+` on %s, on %d cores, with %s. Stall interval %v,
two workers of concurrency %d, each library at its own defaults. "ok" says that all held that
[beequeue must do](guarantees.md); the other libraries do not promise all of it, are let off some of it, and are here
for the figures.

saved: jobs of which a Save succeeded. refused, unsure: Saves that failed, and of which it is not known (asynq never tells).
lost: saved, and gone. stranded: not at their end when nothing moved any more. failed: for good, which only a killer, and
records that are no job, should. rerun: jobs whose handlers began more than once; doubled: whose handlers came to their
end more than once, though only one of these ends counts for beequeue. 2 ids: one job under two ids. 2 states: an id in
two states, at any time. ghosts: ids in a state, without a record. orphans: records in no state.

Times after a failover count from the moment at which the new master is known. What depends on how fast the machine is
counts against beequeue when three runs in a row have missed it, and each that did is in the last column. Anything else that
should not be, such as a lost job where none may be lost, counts at once.

%s
## What beequeue must do

| scenario | fault | bound |
|---|---|---|
`, time.Now().Format("2 January 2006"), runtime.NumCPU(), redisVersion(), stall, concurrency, table)
	for _, sc := range scenarios() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", sc.name, sc.fault, sc.bound)
	}
	return b.String()
}

func redisVersion() string {
	out, err := exec.Command("redis-server", "--version").Output()
	if _, version, found := strings.Cut(string(out), "v="); err == nil && found {
		version, _, _ = strings.Cut(version, " ")
		return "redis-server " + version
	}
	return "redis-server"
}
