package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

var colors = map[string]color.Color{
	ours:     color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	limit:    color.RGBA{0xbb, 0xbb, 0xbb, 0xff},
	beeQueue: color.RGBA{0x00, 0x72, 0xb2, 0xff},
	minimal:  color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	bullMQ:   color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	asynqs:   color.RGBA{0x00, 0x9e, 0x73, 0xff},
	river:    color.RGBA{0xcc, 0x79, 0xa7, 0xff},
}

// mainWorkloads are those of the README.
var mainWorkloads = []string{
	"save", "bulk save", "drain 1", "drain 10", "drain 50", "drain 200", "end to end 5", "end to end 20", "end to end 50",
}

// drawThroughput shows every peer's speed as a multiple of Bee-Queue's.
func (r *results) drawThroughput(name string) error {
	p := newPlot("Jobs a second, as multiples of Bee-Queue's")
	p.Y.Min = 0
	p.Y.Label.Text = "× bee-queue"
	p.Y.Tick.Marker = plot.TickerFunc(wholeNumbers)
	grid := plotter.NewGrid()
	grid.Vertical = draw.LineStyle{}
	p.Add(grid)
	var names []string
	for _, w := range mainWorkloads {
		if _, ok := r.median(w, beeQueue, rate); ok {
			names = append(names, w)
		}
	}
	if len(names) == 0 {
		return nil
	}
	const width = 8.5
	peers := r.peers()
	for i, peer := range peers {
		var values plotter.Values
		for _, w := range names {
			base, _ := r.median(w, beeQueue, rate)
			v, _ := r.median(w, peer, rate)
			values = append(values, v/base)
		}
		bars, err := newBars(values, width, colors[peer])
		if err != nil {
			return err
		}
		bars.Offset = vg.Points(width * (float64(i) - float64(len(peers)-1)/2))
		p.Add(bars)
		p.Legend.Add(peer, bars)
	}
	for i, w := range names {
		names[i] = strings.Replace(w, "end to end", "end to\nend", 1)
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	return saveSVG(p, 860, 340, name)
}

// drawCPU shows what a job costs Redis and the worker. River has no Redis.
func (r *results) drawCPU(name string) error {
	const w = "drain 50"
	p := newPlot("CPU for each job, drain at concurrency 50")
	p.X.Min = 0
	p.X.Label.Text = "µs"
	grid := plotter.NewGrid()
	grid.Horizontal = draw.LineStyle{}
	p.Add(grid)
	var server, client plotter.Values
	var names []string
	for _, peer := range slices.Backward(r.peers()) { // from the bottom up
		s, ok := r.median(w, peer, redisCPU)
		if !ok || peer == river {
			continue
		}
		c, _ := r.median(w, peer, clientCPU)
		server, client, names = append(server, s), append(client, c), append(names, peer)
	}
	if len(names) == 0 {
		return nil
	}
	const width = 16
	below, err := newBars(server, width, colors[beeQueue])
	if err != nil {
		return err
	}
	above, err := newBars(client, width, colors[ours])
	if err != nil {
		return err
	}
	below.Horizontal, above.Horizontal = true, true
	above.StackOn(below)
	p.Add(below, above)
	p.Legend.Add("Redis", below)
	p.Legend.Add("worker", above)
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	return saveSVG(p, 860, 240, name)
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(8)
	p.Title.TextStyle.Font.Size = 14
	p.Legend.Padding = vg.Points(3)
	p.Legend.Top, p.Legend.Left = true, true
	for _, style := range []*text.Style{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		style.Font.Variant = "Sans"
	}
	return p
}

func newBars(values plotter.Values, width float64, c color.Color) (*plotter.BarChart, error) {
	bars, err := plotter.NewBarChart(values, vg.Points(width))
	if err != nil {
		return nil, err
	}
	bars.Color = c
	bars.LineStyle.Width = 0
	return bars, nil
}

// saveSVG writes the plot with its legend at the right of it, where no bar can be.
func saveSVG(p *plot.Plot, width, height float64, name string) error {
	legend := p.Legend
	p.Legend = plot.NewLegend()
	const margin = 8
	beside := legend.Rectangle(draw.Canvas{}).Size().X + 2*margin
	image := vgsvg.New(vg.Points(width), vg.Points(height))
	all := draw.New(image)
	all.SetColor(color.White)
	all.Fill(all.Path())
	p.Draw(draw.Crop(all, margin, -beside, margin, -margin))
	legend.Draw(draw.Crop(all, vg.Points(width)-beside+margin, 0, 0, -36)) // below the title
	var content bytes.Buffer
	if _, err := image.WriteTo(&content); err != nil {
		return err
	}
	// Not everybody has the font; these are as wide.
	svg := strings.ReplaceAll(content.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	return os.WriteFile(name, []byte(svg), 0o644) //nolint:gosec // for everybody
}

// wholeNumbers marks every whole number, or every second.
func wholeNumbers(_, most float64) []plot.Tick {
	step := 1.0
	if most > 8 {
		step = 2
	}
	var ticks []plot.Tick
	for v := 0.0; v <= most; v += step {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	return ticks
}
