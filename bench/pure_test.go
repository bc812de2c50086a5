package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // unsorted
	}
	assert.Zero(t, quantile(nil, 0.5))
	assert.InDelta(t, 7, quantile([]float64{7}, 0.99), 0)
	assert.InDelta(t, 50, quantile(hundred, 0.5), 0)
	assert.InDelta(t, 99, quantile(hundred, 0.99), 0)
	assert.InDelta(t, 100, quantile(hundred, 1), 0)
	assert.InDelta(t, 1, quantile(hundred, 0), 0)
	assert.InDelta(t, 100, hundred[0], 0, "it sorted its argument")
}

// withRates makes results of one figure: jobs/s.
func withRates(rates map[string]map[string][]float64) *results {
	r := newResults()
	for workload, peers := range rates {
		for name, values := range peers {
			for _, v := range values {
				r.add(workload, name, sample{Rate: v})
			}
		}
	}
	return r
}

func TestMedian(t *testing.T) {
	r := withRates(map[string]map[string][]float64{"save": {ours: {3, 1, 2}, limit: {4, 1, 3, 2}}})
	odd, ok := r.median("save", ours, rate)
	assert.True(t, ok)
	assert.InDelta(t, 2, odd, 0)
	even, ok := r.median("save", limit, rate)
	assert.True(t, ok)
	assert.InDelta(t, 2.5, even, 0)
	_, ok = r.median("save", river, rate)
	assert.False(t, ok)
	_, ok = r.median("sleep", ours, rate)
	assert.False(t, ok)
	assert.Equal(t, 3, r.rounds())
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.00", 2.345: "2.35", 12.34: "12.3", 123.4: "123", 1_234: "1.2k", 12_345: "12.3k", 123_456: "123k",
	} {
		assert.Equal(t, want, short(v))
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1_000: "1,000", 50_000: "50,000", 1_000_000: "1,000,000"} {
		assert.Equal(t, want, thousands(n))
	}
}

func TestTable(t *testing.T) {
	table := &table{head: []string{"per job", "a", "bcd"}}
	table.add("CPU, µs", "1.00", "2")
	table.add("commands", "-", "30.0")
	var text strings.Builder
	table.write(&text)
	assert.Equal(t, ""+
		"| per job  |    a |  bcd |\n"+
		"|----------|-----:|-----:|\n"+
		"| CPU, µs  | 1.00 |    2 |\n"+
		"| commands |    - | 30.0 |\n", text.String())
}

func TestThroughput(t *testing.T) {
	r := withRates(map[string]map[string][]float64{
		"save":         {ours: {300}, beeQueue: {100}, bullMQ: {50}},
		"bulk save":    {ours: {400}, beeQueue: {100}},
		"idle latency": {ours: {1}, beeQueue: {1}},
	})
	all := r.throughput()
	assert.Equal(t, []string{"jobs/s (× bee-queue)", ours, beeQueue, bullMQ}, all.head)
	assert.Equal(t, [][]string{{"save", "300 (3)", "100", "50.0 (0.5)"}, {"bulk save", "400 (4)", "100", "-"}}, all.rows)
}

// verdict is what the table of targets says of one.
func verdict(t *testing.T, r *results, target string) string {
	t.Helper()
	for _, row := range r.targets().rows {
		if row[0] == target {
			return row[3]
		}
	}
	return "not there"
}

func TestTargets(t *testing.T) {
	one := func(workload, name string, s sample) *results {
		r := newResults()
		r.add(workload, name, s)
		return r
	}
	rates := func(own, bee, limits float64) *results {
		return withRates(map[string]map[string][]float64{"save": {ours: {own}, beeQueue: {bee}, limit: {limits}}})
	}
	for _, c := range []struct {
		target string
		met    *results
		missed *results
	}{
		{"save, × bee-queue", rates(300, 100, 300), rates(299, 100, 300)},
		{"save, of LIMIT", rates(255, 1, 300), rates(254, 1, 300)},
		{"drain 50, commands", one("drain 50", ours, sample{Commands: 3}), one("drain 50", ours, sample{Commands: 3.01})},
		{"points where a peer is ahead", rates(300, 100, 900), rates(99, 100, 900)},
	} {
		assert.Equal(t, "met", verdict(t, c.met, c.target), c.target)
		assert.Equal(t, "MISSED", verdict(t, c.missed, c.target), c.target)
		assert.Equal(t, "not there", verdict(t, newResults(), c.target), c.target)
	}
}

func TestReplaceBetween(t *testing.T) {
	replace := func(text string) string {
		return string(replaceBetween([]byte(text), "<a>", "</a>", []byte("new")))
	}
	assert.Equal(t, "x <a>new</a> y", replace("x <a>old</a> y"))
	assert.Equal(t, "x <a>new</a> y", replace("x <a></a> y"))
	assert.Equal(t, "</a> <a>new</a> <a>2</a>", replace("</a> <a>1</a> <a>2</a>"))
	for _, same := range []string{"", "no marks", "<a>no end", "no begin</a>"} {
		assert.Equal(t, same, replace(same))
	}
}

// TestDocumentsHaveParts compares the marks in the documents with the texts for them.
func TestDocumentsHaveParts(t *testing.T) {
	var marks []string
	for _, name := range []string{"../docs/performance.md", "../README.md"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`<!-- bench:([\w-]+) -->\n[^<]*<!-- bench end -->`).FindAllSubmatch(text, -1) {
			marks = append(marks, string(found[1]))
		}
	}
	for part := range newResults().parts() {
		assert.Contains(t, marks, part)
	}
	for _, mark := range marks {
		assert.Contains(t, newResults().parts(), mark)
	}
}

func TestJobs(t *testing.T) {
	for _, list := range expected {
		assert.Len(t, list, len(everyPeer))
	}
	second, tenth := &bench{seconds: 1}, &bench{seconds: 0.1}
	for task, list := range map[string][]float64{"drain": expected["drain 50"], "save": expected["save"], "bulk": expected["bulk"]} {
		for i, name := range everyPeer {
			assert.Equal(t, int(1000*list[i]), second.jobs(name, task, 50), "%s, %s", name, task)
		}
	}
	assert.Equal(t, second.jobs(ours, "drain", 50), second.jobs(ours, "drain", 49), "a concurrency that is not in the table")
	assert.Less(t, tenth.jobs(ours, "drain", 1), second.jobs(ours, "drain", 1))
	assert.Equal(t, 20, tenth.jobs(river, "drain", 1), "never fewer")
	assert.Zero(t, tenth.jobs(beeQueue, "bulk", 0)%peer.BulkSize, "whole calls")
	assert.Equal(t, peer.BulkSize, (&bench{seconds: 0.001}).jobs(beeQueue, "bulk", 0))
}

func TestWarm(t *testing.T) {
	assert.Equal(t, 5_000, warm(peer.Order{Peer: beeQueue, Jobs: 20, Payload: 100}))
	assert.Equal(t, 300, warm(peer.Order{Peer: bullMQ, Jobs: 20, Payload: 100_000}))
	assert.Equal(t, 10, warm(peer.Order{Peer: river, Jobs: 20, Payload: 100}))
	assert.Equal(t, 500, warm(peer.Order{Peer: ours, Jobs: 5_000, Payload: 100}))
	assert.Equal(t, 2_000, warm(peer.Order{Peer: ours, Jobs: 200_000, Payload: 100}))
}

func TestChosen(t *testing.T) {
	names := func(o options) (list []string) {
		workloads, err := chosen(o)
		require.NoError(t, err)
		for _, w := range workloads {
			list = append(list, w.name)
		}
		return list
	}
	all := names(options{})
	assert.Len(t, all, len(plan()))
	assert.Len(t, slices.Compact(slices.Sorted(slices.Values(all))), len(all), "a name is there twice")
	for _, name := range mainWorkloads {
		assert.Contains(t, all, name)
	}
	assert.Equal(t, []string{"drain 50"}, names(options{only: "^drain 50$"}))
	assert.NotContains(t, names(options{peers: river}), "idle")

	quick, err := chosen(options{quick: true})
	require.NoError(t, err)
	assert.ElementsMatch(t, fewPeers, peersOf(quick))
	for _, o := range []options{{only: "("}, {peers: "("}, {only: "nothing"}, {peers: "nobody"}} {
		_, err := chosen(o)
		assert.Error(t, err)
	}
}

func TestMonitored(t *testing.T) {
	for line, want := range map[string]string{
		`1700000000.123456 [0 127.0.0.1:40000] "EVALSHA" "a [b] c"`: "127.0.0.1:40000",
		`1700000000.123456 [0 lua] "RPOP" "x"`:                      "",
		"+OK":                                                       "",
		"":                                                          "",
	} {
		client, ok := monitored(line)
		assert.Equal(t, want != "", ok, line)
		if ok {
			assert.Equal(t, want, client)
		}
	}
}

func TestCharts(t *testing.T) {
	r := newResults()
	for _, w := range mainWorkloads {
		for i, name := range everyPeer {
			r.add(w, name, sample{Rate: float64(1 + i), RedisCPU: 5, CPU: 9})
		}
	}
	for _, draw := range []func(string) error{r.drawThroughput, r.drawCPU} {
		name := filepath.Join(t.TempDir(), "chart.svg")
		require.NoError(t, draw(name))
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for decoder := xml.NewDecoder(strings.NewReader(string(text))); ; {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
		assert.Contains(t, string(text), ">"+ours+"<")
		assert.Contains(t, string(text), ">"+limit+"<")
	}
	none := filepath.Join(t.TempDir(), "none.svg")
	require.NoError(t, newResults().drawThroughput(none))
	assert.NoFileExists(t, none)
}

func TestResultsFile(t *testing.T) {
	r := withRates(map[string]map[string][]float64{"save": {ours: {1, 2}}})
	r.Missing[river] = "no PostgreSQL"
	name := filepath.Join(t.TempDir(), "results.json")
	require.NoError(t, r.write(name))
	again, err := obtain(context.Background(), name, options{})
	require.NoError(t, err)
	assert.Equal(t, r.Samples, again.Samples)
	assert.Contains(t, again.origin(), "Without river: no PostgreSQL.")
}
