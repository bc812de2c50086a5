package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// publish draws the charts into the folder of the documentation, and renews the
// tables in its performance.md and in the README above it. A table stands between
// two comments, "bench:NAME" and "bench end".
func (r *results) publish(docs string) error {
	if err := r.drawThroughput(filepath.Join(docs, "performance-throughput.svg")); err != nil {
		return err
	}
	if err := r.drawCPU(filepath.Join(docs, "performance-cpu.svg")); err != nil {
		return err
	}
	tables := map[string]func() *table{
		"throughput": r.throughput,
		"summary":    r.summary,
		"costs":      func() *table { return r.costs("drain 50") },
		"costs-save": func() *table { return r.costs("save") },
		"costs-one":  func() *table { return r.costs("drain 1") },
		"latency":    r.latency,
		"idle":       r.idle,
		"targets":    r.targets,
	}
	for _, name := range []string{filepath.Join(docs, "performance.md"), filepath.Join(docs, "..", "README.md")} {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for key, make := range tables {
			var body bytes.Buffer
			make().write(&body)
			text = replaceBetween(text, "<!-- bench:"+key+" -->\n", "<!-- bench end -->", body.Bytes())
		}
		origin := fmt.Sprintf("%s; %s; %s; medians of %d rounds.\n", r.Date, r.Machine, r.Versions, r.rounds())
		text = replaceBetween(text, "<!-- bench:origin -->\n", "<!-- bench end -->", []byte(origin))
		if err := os.WriteFile(name, text, 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
	}
	return nil
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

func replaceBetween(text []byte, open, end string, body []byte) []byte {
	before, rest, found := bytes.Cut(text, []byte(open))
	if !found {
		return text
	}
	_, after, found := bytes.Cut(rest, []byte(end))
	if !found {
		return text
	}
	return bytes.Join([][]byte{before, []byte(open), body, []byte(end), after}, nil)
}

// mainWorkloads are those of the README.
var mainWorkloads = []string{
	"save", "bulk save", "drain 1", "drain 10", "drain 50", "drain 200", "end to end 5", "end to end 20", "end to end 50",
}

// summary is the README's table: jobs/s at the main workloads.
func (r *results) summary() *table {
	all := r.throughput()
	t := &table{head: all.head}
	for _, name := range mainWorkloads {
		for _, row := range all.rows {
			if row[0] == name {
				t.rows = append(t.rows, row)
			}
		}
	}
	return t
}

var colors = map[string]color.Color{
	ours:     color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	limit:    color.RGBA{0xbb, 0xbb, 0xbb, 0xff},
	beeQueue: color.RGBA{0x00, 0x72, 0xb2, 0xff},
	minimal:  color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	bullMQ:   color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	asynqs:   color.RGBA{0x00, 0x9e, 0x73, 0xff},
	river:    color.RGBA{0xcc, 0x79, 0xa7, 0xff},
}

// drawThroughput shows every peer's speed as a multiple of Bee-Queue's.
func (r *results) drawThroughput(name string) error {
	p := plot.New()
	p.Title.Text = "Jobs a second, as multiples of Bee-Queue's"
	p.Y.Min = 0
	p.Add(horizontalGrid())
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(2)
	var names []string
	for _, w := range mainWorkloads {
		if _, ok := r.median(w, beeQueue, rate); ok {
			names = append(names, w)
		}
	}
	if len(names) == 0 {
		return nil
	}
	peers := r.peers()
	const width = 7.0
	for i, peer := range peers {
		var values plotter.Values
		for _, w := range names {
			base, _ := r.median(w, beeQueue, rate)
			v, _ := r.median(w, peer, rate)
			values = append(values, v/base)
		}
		bars, err := plotter.NewBarChart(values, vg.Points(width))
		if err != nil {
			return err
		}
		bars.Color = colors[peer]
		bars.LineStyle.Width = 0
		bars.Offset = vg.Points(width * (float64(i) - float64(len(peers)-1)/2))
		p.Add(bars)
		p.Legend.Add(peer, bars)
	}
	p.NominalX(names...)
	return p.Save(vg.Points(760), vg.Points(330), name)
}

// drawCPU shows what a job costs the server and the worker.
func (r *results) drawCPU(name string) error {
	const w = "drain 50"
	p := plot.New()
	p.Title.Text = "CPU for each job, µs, drain at concurrency 50"
	p.X.Min = 0
	p.Legend.Top = true
	var server, client plotter.Values
	var names []string
	peers := r.peers()
	for i := len(peers) - 1; i >= 0; i-- { // from the bottom up
		s, ok := r.median(w, peers[i], redisCPU)
		if !ok || peers[i] == river { // whose polls are not a matter of CPU
			continue
		}
		c, _ := r.median(w, peers[i], clientCPU)
		server, client, names = append(server, s), append(client, c), append(names, peers[i])
	}
	if len(names) == 0 {
		return nil
	}
	below, err := plotter.NewBarChart(server, vg.Points(16))
	if err != nil {
		return err
	}
	above, err := plotter.NewBarChart(client, vg.Points(16))
	if err != nil {
		return err
	}
	below.Horizontal, above.Horizontal = true, true
	below.Color, above.Color = colors[beeQueue], colors[ours]
	below.LineStyle.Width, above.LineStyle.Width = 0, 0
	above.StackOn(below)
	p.Add(below, above)
	p.Legend.Add("Redis", below)
	p.Legend.Add("worker", above)
	p.NominalY(names...)
	return p.Save(vg.Points(760), vg.Points(240), name)
}

func horizontalGrid() *plotter.Grid {
	grid := plotter.NewGrid()
	grid.Vertical = draw.LineStyle{}
	return grid
}

