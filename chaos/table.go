package main

import (
	"fmt"
	"io"
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
	took     time.Duration
}

func (r result) ok() bool { return r.skipped == "" && len(r.problems) == 0 }

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
	fmt.Fprint(w, "  | seen |\n|---|---|")
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
	if len(r.problems) > 0 {
		seen = append(seen, "**"+strings.Join(r.problems, "; ")+"**")
	}
	text := strings.NewReplacer("|", `\|`, "\n", " ").Replace(strings.Join(seen, "; "))
	fmt.Fprintf(w, " %s | %s |\n", r.word(), text)
}
