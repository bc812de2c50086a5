package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// The judge counts each thing that can go wrong, and nothing else.
func TestCount(t *testing.T) {
	say := func(words ...string) []actor.Entry { // of job 7
		var entries []actor.Entry
		for _, word := range words {
			entries = append(entries, actor.Entry{What: word, N: 7})
		}
		return entries
	}
	done := snapshot{
		places:  map[string][]string{"1": {"succeeded"}},
		records: map[string]string{"1": record(7, "")},
	}
	without := func(change func(s *snapshot)) snapshot {
		s := snapshot{places: map[string][]string{"1": {"succeeded"}}, records: map[string]string{"1": record(7, "")}}
		change(&s)
		return s
	}
	nothing := snapshot{}
	for name, c := range map[string]struct {
		ledgers [][]actor.Entry
		end     snapshot
		twice   map[string][]string
		want    verdict
	}{
		"well": {
			ledgers: [][]actor.Entry{say(actor.Saved), say(actor.Start, actor.End)}, end: done,
			want: verdict{saved: 1},
		},
		"lost": {ledgers: [][]actor.Entry{say(actor.Saved)}, end: nothing, want: verdict{saved: 1, lost: 1}},
		"refused, then saved": {
			ledgers: [][]actor.Entry{say(actor.Refused, actor.Saved, actor.End)}, end: done, want: verdict{saved: 1, refused: 1},
		},
		"refused, and stored": {
			ledgers: [][]actor.Entry{say(actor.Refused, actor.End)}, end: done, want: verdict{refused: 1, belied: 1},
		},
		"refused, and not stored": {ledgers: [][]actor.Entry{say(actor.Refused)}, end: nothing, want: verdict{refused: 1}},
		"unsure, refused, and stored": {
			ledgers: [][]actor.Entry{say(actor.Refused, actor.Unsure, actor.Refused, actor.End)}, end: done,
			want: verdict{refused: 2, unsure: 1, unsureStored: 1},
		},
		"stranded": {
			ledgers: [][]actor.Entry{say(actor.Saved)},
			end:     without(func(s *snapshot) { s.places["1"] = []string{"active"} }),
			want:    verdict{saved: 1, stranded: 1},
		},
		"failed": {
			ledgers: [][]actor.Entry{say(actor.Saved)},
			end:     without(func(s *snapshot) { s.places["1"] = []string{"failed"} }),
			want:    verdict{saved: 1, failed: 1},
		},
		"started in two processes": {
			ledgers: [][]actor.Entry{say(actor.Saved), say(actor.Start), say(actor.Start, actor.End)}, end: done,
			want: verdict{saved: 1, reruns: 1},
		},
		"doubled": {
			ledgers: [][]actor.Entry{say(actor.Saved), say(actor.Start, actor.End), say(actor.Start, actor.End)}, end: done,
			want: verdict{saved: 1, reruns: 1, doubled: 1},
		},
		"succeeded without a run": {
			ledgers: [][]actor.Entry{say(actor.Saved, actor.Start)}, end: done, want: verdict{saved: 1, neverRun: 1},
		},
		"under another id": {
			ledgers: [][]actor.Entry{{{What: actor.Saved, N: 7, ID: "9"}, {What: actor.End, N: 7}}}, end: done,
			want: verdict{saved: 1, misnamed: 1},
		},
		"under its id": {
			ledgers: [][]actor.Entry{{{What: actor.Saved, N: 7, ID: "1"}, {What: actor.End, N: 7}}}, end: done, want: verdict{saved: 1},
		},
		"unsure after it was saved": {
			ledgers: [][]actor.Entry{say(actor.Saved, actor.Unsure, actor.End)}, end: done, want: verdict{saved: 1, unsure: 1},
		},
		"under two ids": {
			ledgers: [][]actor.Entry{say(actor.Saved, actor.End)},
			end: without(func(s *snapshot) {
				s.places["2"], s.records["2"] = []string{"succeeded"}, record(7, "")
			}),
			want: verdict{saved: 1, twoIDs: 1},
		},
		"in two states": {
			ledgers: [][]actor.Entry{say(actor.Saved)},
			end:     without(func(s *snapshot) { s.places["1"] = []string{"active", "succeeded"} }),
			twice:   map[string][]string{"1": {"active", "succeeded"}, "3": {"waiting", "waiting"}},
			want:    verdict{saved: 1, twoStates: 2},
		},
		"in two states at the end alone": {
			ledgers: [][]actor.Entry{say(actor.Saved)},
			end:     without(func(s *snapshot) { s.places["1"] = []string{"waiting", "waiting"} }),
			want:    verdict{saved: 1, twoStates: 1},
		},
		"ghost": {
			ledgers: [][]actor.Entry{say(actor.Saved, actor.End)},
			end:     without(func(s *snapshot) { s.places["2"] = []string{"waiting"} }),
			want:    verdict{saved: 1, ghosts: 1},
		},
		"orphan": {
			ledgers: [][]actor.Entry{say(actor.Saved)},
			end:     without(func(s *snapshot) { delete(s.places, "1") }),
			want:    verdict{saved: 1, orphans: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, count(beeQueueLayout, c.ledgers, c.end, c.twice))
		})
	}
}

// Whatever the judge has counted is a problem, but for what a scenario may lose or fail.
func TestProblems(t *testing.T) {
	assert.Empty(t, verdict{saved: 9, refused: 9, unsure: 9, unsureStored: 9, reruns: 9, doubled: 9, lost: 2, failed: 1}.problems(2, 1))
	for _, v := range []verdict{
		{lost: 3}, {failed: 2}, {belied: 1}, {stranded: 1}, {neverRun: 1}, {misnamed: 1}, {twoIDs: 1}, {twoStates: 1}, {ghosts: 1}, {orphans: 1},
	} {
		assert.Len(t, v.problems(2, 1), 1, "%+v", v)
	}
}

// A time that is too long is a delay, and each is in the table.
func TestWithin(t *testing.T) {
	now := time.Now()
	s := &scene{tb: t}
	s.within(now, now.Add(time.Second), time.Second, "it")
	require.Empty(t, s.delays)
	s.within(now, now.Add(time.Second+1), time.Second, "it")
	require.Len(t, s.delays, 1)
	require.Len(t, s.measures, 2)
	require.Empty(t, s.problems)
}

// A process that could not run extends a bound by what of that lies in its time.
func TestHeldUp(t *testing.T) {
	s := &scene{tb: t}
	entry := actor.Entry{T: time.Now().UnixNano(), What: actor.Starved, N: 1000}
	begin, end := entry.Time().Add(-time.Second), entry.Time()
	s.processes = []*process{wrote(t, actor.Producer, entry)}
	for _, c := range []struct{ from, to, held time.Duration }{ // since the begin
		{-time.Hour, time.Hour, time.Second},
		{0, 300 * time.Millisecond, 300 * time.Millisecond},
		{900 * time.Millisecond, time.Hour, 100 * time.Millisecond},
		{time.Second, time.Hour, 0},
		{-time.Hour, 0, 0},
		{-time.Hour, -time.Minute, 0},
	} {
		assert.Equal(t, c.held, s.heldUp(begin.Add(c.from), begin.Add(c.to)))
	}
	s.within(begin, end, time.Millisecond, "it")
	require.Empty(t, s.delays)
	s.within(begin, end.Add(2*time.Millisecond), time.Millisecond, "it")
	require.Len(t, s.delays, 1)
}

// wrote gives a process that has written something.
func wrote(t *testing.T, role string, entries ...actor.Entry) *process {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "ledger"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return &process{order: actor.Order{Role: role}, ledger: file, counts: make(map[string]int), seen: entries}
}

// A scenario is run again for its delays alone, and not for ever.
func TestRepeat(t *testing.T) {
	late, lost, fine := result{delays: []string{"late"}}, result{delays: []string{"late"}, problems: []string{"lost"}}, result{}
	for name, c := range map[string]struct {
		runs     []result
		tries    int
		ok       bool
		measures []string
	}{
		"fine":      {runs: []result{fine}, tries: 1, ok: true},
		"late once": {runs: []result{late, fine}, tries: 2, ok: true, measures: []string{"try 1: late"}},
		"lost":      {runs: []result{lost}, tries: 1},
		"then lost": {runs: []result{late, lost}, tries: 2, measures: []string{"try 1: late"}},
		"always":    {runs: []result{late, late, late}, tries: 3, measures: []string{"try 1: late", "try 2: late"}},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			r := repeat(func() result {
				tries++
				return c.runs[tries-1]
			})
			assert.Equal(t, c.tries, tries)
			assert.Equal(t, c.ok, r.ok())
			assert.Equal(t, c.measures, r.measures)
		})
	}
}

// A job that ran twice is a problem, and a delay if a worker could not run for so long that
// it may have lost it.
func TestMostRuns(t *testing.T) {
	for _, c := range []struct {
		role    string
		starved int
		excused bool
	}{
		{actor.Worker, 0, false},
		{actor.Worker, 600, false},
		{actor.Worker, 700, true},
		{actor.Producer, 700, false},
	} {
		excused := c.excused
		s := &scene{tb: t, processes: []*process{wrote(t, c.role, actor.Entry{What: actor.Starved, N: c.starved})}}
		s.mostRuns("doubled", 1, 1)
		require.Empty(t, append(s.problems, s.delays...))
		s.mostRuns("doubled", 2, 1)
		require.Equal(t, excused, len(s.delays) == 1)
		require.Equal(t, !excused, len(s.problems) == 1)
	}
}

// What gave up is a problem, unless the machine did not run it.
func TestPlays(t *testing.T) {
	s := &scene{tb: t}
	require.True(t, s.plays(func() {}))
	require.False(t, s.plays(func() { panic(gaveUp{"waited in vain"}) }))
	require.Equal(t, []string{"waited in vain"}, s.problems)
	require.Empty(t, s.delays)
	s = &scene{tb: t, processes: []*process{wrote(t, actor.Worker, actor.Entry{What: actor.Starved, N: 1000})}}
	require.False(t, s.plays(func() { panic(gaveUp{"waited in vain"}) }))
	require.Equal(t, []string{"waited in vain"}, s.delays)
	require.Empty(t, s.problems)
}

// A soak that grows is found out, and one that does not is not.
func TestFlat(t *testing.T) {
	samples := func(value func(i int) float64) []usage {
		var all []usage
		for i := range 50 {
			all = append(all, usage{"heap, MiB": value(i), "memory, MiB": 1 << 20})
		}
		return all
	}
	for name, c := range map[string]struct {
		all  []usage
		grew bool
	}{
		"flat":            {samples(func(i int) float64 { return float64(10<<20 + i%2) }), false},
		"growing":         {samples(func(i int) float64 { return float64(10<<20 + i<<18) }), true},
		"one high moment": {samples(func(i int) float64 { return []float64{10 << 20, 99 << 20}[max(0, i-48)] }), false},
		"too few":         {samples(func(int) float64 { return 1 })[:4], true},
	} {
		t.Run(name, func(t *testing.T) {
			k := &soak{scene: &scene{tb: t}, out: t.Output()}
			k.flat("it", c.all)
			assert.Equal(t, c.grew, len(k.problems) > 0, "%v", k.problems)
		})
	}
}

// The table has a row for each result, which says what did not hold.
func TestRow(t *testing.T) {
	var b strings.Builder
	header(&b)
	r := result{scenario: scenario{fault: "a fault"}, library: ours, verdict: verdict{lost: 3}, problems: []string{"lost 3 | of 4"}}
	require.False(t, r.ok())
	r.row(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, 3)
	columns := strings.Count(lines[0], "|")
	require.Equal(t, columns, strings.Count(lines[1], "|"))
	require.Equal(t, columns, strings.Count(strings.ReplaceAll(lines[2], `\|`, ""), "|"))
	require.Contains(t, lines[2], "NOT OK")
	require.Contains(t, lines[2], `**lost 3 \| of 4**`)
	require.Contains(t, page(b.String()), lines[2])
}
