// Package metrics writes figures in the text format that Prometheus reads
// (prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4). It is the
// little of it that an agent needs: gauges, counters and histograms.
package metrics

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ContentType is what a page of metrics is served as.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A Kind says what can be done with the samples of a family.
type Kind string

// The kinds.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
)

// A Family is one metric: its name, and what it says.
type Family struct {
	Name, Help string
	Kind       Kind
}

// A Page collects samples and writes them, those of a family together, in the
// order in which the families first came.
type Page struct {
	families []*Family
	samples  map[*Family]*strings.Builder
}

// Add adds a sample. Labels are name and value in turn.
func (p *Page) Add(f *Family, value float64, labels ...string) { p.sample(f, "", value, labels) }

// AddBool adds 1 for true and 0 for false.
func (p *Page) AddBool(f *Family, is bool, labels ...string) {
	value := 0.0
	if is {
		value = 1
	}
	p.Add(f, value, labels...)
}

// AddDurations adds the samples of a histogram.
func (p *Page) AddDurations(f *Family, d *Durations, labels ...string) {
	sum := int64(0)
	for i, limit := range d.limits {
		sum += d.counts[i].Load()
		p.sample(f, "_bucket", float64(sum), append(slices.Clip(labels), "le", number(limit.Seconds())))
	}
	sum += d.counts[len(d.limits)].Load()
	p.sample(f, "_bucket", float64(sum), append(slices.Clip(labels), "le", "+Inf"))
	p.sample(f, "_sum", time.Duration(d.sum.Load()).Seconds(), labels)
	p.sample(f, "_count", float64(sum), labels)
}

func (p *Page) sample(f *Family, suffix string, value float64, labels []string) {
	if p.samples == nil {
		p.samples = make(map[*Family]*strings.Builder)
	}
	b := p.samples[f]
	if b == nil {
		b = new(strings.Builder)
		p.samples[f] = b
		p.families = append(p.families, f)
	}
	b.WriteString(f.Name + suffix)
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(b, `%s="%s"`, labels[i], escape.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteString(" " + number(value) + "\n")
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// WriteTo writes the page.
func (p *Page) WriteTo(w io.Writer) (n int64, err error) {
	for _, f := range p.families {
		m, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s", f.Name, f.Help, f.Name, f.Kind, p.samples[f])
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Durations counts how long things took, by size. It may be used by many
// goroutines.
type Durations struct {
	limits []time.Duration
	counts []atomic.Int64 // one more than limits
	sum    atomic.Int64
}

// NewDurations makes a histogram with these upper limits, in their order.
func NewDurations(limits ...time.Duration) *Durations {
	return &Durations{limits: limits, counts: make([]atomic.Int64, len(limits)+1)}
}

// Observe counts one. A clock that was set back makes it 0.
func (d *Durations) Observe(took time.Duration) {
	took = max(took, 0)
	i := sort.Search(len(d.limits), func(i int) bool { return took <= d.limits[i] })
	d.counts[i].Add(1)
	d.sum.Add(int64(took))
}
