package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A gauge is something that must not grow with the number of jobs.
type gauge struct {
	name, unit string
	panel      string
	room       int64         // how much it may be more at the end than in the middle
	share      float64       // and which share of what it was then
	perJob     int64         // it may grow by so many bytes a job; it is said how much it does
	flatAfter  time.Duration // does so only for so long; 0 = for ever
}

var gauges = []gauge{
	{name: "agent memory", unit: "kB", panel: "memory", room: 8 << 10, share: 0.15},
	{name: "runner memory", unit: "kB", panel: "memory", room: 6 << 10, share: 0.15},
	{name: "broker memory", unit: "kB", panel: "memory", room: 24 << 10, share: 0.25},
	{name: "agent descriptors", unit: "", panel: "descriptors", room: 12},
	{name: "runner descriptors", unit: "", panel: "descriptors", room: 4 * soakWorkers}, // of what runs
	{name: "broker descriptors", unit: "", panel: "descriptors", room: 8},
	{name: "agent threads", unit: "", panel: "threads", room: 8},
	{name: "runner threads", unit: "", panel: "threads", room: 8},
	{name: "journal", unit: "kB", panel: "journal", room: 16 << 10, share: 0.15, perJob: 800, flatAfter: soakForgets},
	{name: "runner disk", unit: "kB", panel: "disk", room: 4 << 10, share: 0.25},
	{name: "broker disk", unit: "kB", panel: "disk", room: 24 << 10, share: 0.25},
	{name: "runner files", unit: "", panel: "files", room: 4 * soakWorkers},
	{name: "log", unit: "kB", panel: "log of the agent", perJob: 320},
}

// judge writes the table of gauges and returns those that grew.
func (s *soak) judge(w io.Writer, goroutines int) (bad []string) {
	if s.json {
		defer func() { s.encode(w, bad) }()
		w = io.Discard
	}
	last := s.samples[len(s.samples)-1]
	say(w, "%d jobs on %s in %.0f s, %.0f a second: each is answered, %v", s.jobs, s.list, last.Seconds, float64(s.jobs)/last.Seconds, s.states)
	for _, state := range slices.Sorted(maps.Keys(s.reasons)) {
		if state != cbsdmq.Done {
			say(w, "the last one %s: %s", state, s.reasons[state])
		}
	}
	if s.strange > 0 {
		bad = append(bad, "replies")
		say(w, "%d replies too many", s.strange)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tBEGIN\tMIDDLE\tEND\tALLOWED\t")
	for _, g := range gauges {
		begin, middle, end := s.median(g.name, 0, 0.1), s.median(g.name, 0.5, 0.65), s.median(g.name, 0.85, 1)
		if end == 0 {
			continue
		}
		allowed := middle + g.room + int64(float64(middle)*g.share)
		verdict := "flat"
		if g.perJob > 0 && (g.flatAfter == 0 || last.Seconds < 2*g.flatAfter.Seconds()) {
			allowed = g.perJob * int64(s.jobs) >> 10
			verdict = fmt.Sprintf("%d bytes a job", end<<10/int64(s.jobs))
		}
		if end > allowed {
			verdict = "GREW"
			bad = append(bad, g.name)
		}
		fmt.Fprintf(t, "%s %s\t%d\t%d\t%d\t%d\t%s\n", g.name, g.unit, begin, middle, end, allowed, verdict)
	}
	const most = 80
	verdict := "flat"
	if goroutines > most {
		verdict = "GREW"
		bad = append(bad, "goroutines")
	}
	fmt.Fprintf(t, "agent goroutines\t\t\t%d\t%d\t%s\n", goroutines, most, verdict)
	t.Flush()
	return bad
}

// median of a gauge between two shares of the samples.
func (s *soak) median(name string, from, to float64) int64 {
	n := float64(len(s.samples))
	part := s.samples[int(n*from):max(int(n*from)+1, int(n*to))]
	var values []int64
	for _, p := range part {
		values = append(values, p.Values[name])
	}
	slices.Sort(values)
	return values[len(values)/2]
}
