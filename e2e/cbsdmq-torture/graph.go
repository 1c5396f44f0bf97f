package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
)

// The graph: one panel below the other, the number of jobs from left to right.
const (
	graphWidth   = 900
	panelHeight  = 150
	panelGap     = 46
	marginLeft   = 70
	marginRight  = 190
	marginTop    = 56
	marginBottom = 40
)

var inks = []string{"#1f6f8b", "#d1495b", "#66a182"}

// graph draws the samples as an SVG.
func graph(title string, samples []sample) []byte {
	var panels []string
	for _, g := range gauges {
		if !slices.Contains(panels, g.panel) {
			panels = append(panels, g.panel)
		}
	}
	last := samples[len(samples)-1]
	height := marginTop + len(panels)*(panelHeight+panelGap) + marginBottom
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", graphWidth, height, graphWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="26" font-size="16">%s</text>`+"\n", marginLeft, html.EscapeString(title))
	right := float64(graphWidth - marginRight)
	x := func(jobs int) float64 {
		return marginLeft + (right-marginLeft)*float64(jobs)/float64(max(last.Jobs, 1))
	}
	for i, panel := range panels {
		top := float64(marginTop + i*(panelHeight+panelGap))
		drawPanel(&b, panel, samples, x, top, right)
	}
	base := float64(height - marginBottom + 4)
	for i := range 5 {
		jobs := last.Jobs * i / 4
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%d</text>`+"\n", x(jobs), base, jobs)
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" fill="#555">jobs</text>`+"\n</svg>\n", right+24, base)
	return b.Bytes()
}

func drawPanel(b *bytes.Buffer, panel string, samples []sample, x func(int) float64, top, right float64) {
	var lines []gauge
	unit, scale := "", 1.0
	highest := 1.0
	for _, g := range gauges {
		if g.panel != panel {
			continue
		}
		lines = append(lines, g)
		if g.unit == "kB" {
			unit, scale = " in MB", 1024
		}
		for _, s := range samples {
			highest = max(highest, float64(s.Values[g.name])/scale)
		}
	}
	highest = nice(highest)
	y := func(v float64) float64 { return top + panelHeight*(1-v/highest) }
	fmt.Fprintf(b, `<text x="%d" y="%.1f" font-size="13">%s%s</text>`+"\n", marginLeft, top-8, html.EscapeString(panel), unit)
	for i := range 3 {
		v := highest * float64(i) / 2
		fmt.Fprintf(b, `<line x1="%d" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%g</text>`+"\n",
			marginLeft, right, y(v), y(v), marginLeft-8, y(v)+4, v)
	}
	row := 0
	for i, g := range lines {
		end := samples[len(samples)-1].Values[g.name]
		if end == 0 {
			continue
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, inks[i%len(inks)])
		for _, s := range samples {
			fmt.Fprintf(b, "%.1f,%.1f ", x(s.Jobs), y(float64(s.Values[g.name])/scale))
		}
		fmt.Fprint(b, `"/>`+"\n")
		at := top + 14 + float64(row)*18
		row++
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="3"/><text x="%.1f" y="%.1f">%s: %.4g</text>`+"\n",
			right+14, right+30, at-4, at-4, inks[i%len(inks)], right+36, at, html.EscapeString(g.name), float64(end)/scale)
	}
}

// nice is the next number of the form 1, 2 or 5 times a power of ten.
func nice(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if v <= m*p {
			return m * p
		}
	}
	return v
}
