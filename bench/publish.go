package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// publish draws the charts into the folder of the documentation, and renews the
// tables in its performance.md and in the README above it. A table stands between
// two comments, "bench:NAME" and "bench end".
func (r *results) publish(docs string) error {
	for _, chart := range []struct {
		name string
		draw func(string) error
	}{{"performance-throughput.svg", r.drawThroughput}, {"performance-cpu.svg", r.drawCPU}} {
		if err := chart.draw(filepath.Join(docs, chart.name)); err != nil {
			return fmt.Errorf("draw %s: %w", chart.name, err)
		}
	}
	for _, name := range []string{filepath.Join(docs, "performance.md"), filepath.Join(docs, "..", "README.md")} {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for part, body := range r.parts() {
			text = replaceBetween(text, "<!-- bench:"+part+" -->\n", "<!-- bench end -->", body)
		}
		if err := os.WriteFile(name, text, 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
	}
	return nil
}

// parts are the texts that publish puts between comments, by name.
func (r *results) parts() map[string][]byte {
	parts := map[string][]byte{"origin": []byte(r.origin() + "\n")}
	for name, t := range map[string]*table{
		"throughput": r.throughput(),
		"summary":    r.summary(),
		"costs":      r.costs("drain 50"),
		"costs-save": r.costs("save"),
		"costs-one":  r.costs("drain 1"),
		"latency":    r.latency(),
		"idle":       r.idle(),
		"targets":    r.targets(),
	} {
		var text bytes.Buffer
		t.write(&text)
		parts[name] = text.Bytes()
	}
	return parts
}

// replaceBetween puts body between the first open and the end after it; a text
// without them stays as it is.
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
